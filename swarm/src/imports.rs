//! Imported backends on their way into the registry.

use crate::{
    admin::Clients,
    api::ImportReport,
    import::{Entry, Import},
    up,
};
use kit::{backoff::Backoff, host::Context};
use proto::registry::{Durability, Kind, Registration};
use registry_client::{Error, Filter};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Label of what came from a file, so that it goes when it is taken out of the file.
const SOURCE: (&str, &str) = ("source", "import");

/// Names a backend that is left out, and why.
pub(crate) fn tell(file: &str, name: &str, reason: &str) {
    up::warn(&format!("{file}: backend `{name}` is left out: {reason}"));
}

/// Registers a file's backends once the registry answers; until then the node is not ready.
pub(crate) fn spawn(context: &Context, clients: Clients, import: Import) {
    let imported = context.readiness.condition("import");
    imported.unmet("registering imported backends");
    let shutdown = context.shutdown.clone();
    let owner = format!("node/{}", context.node);
    context.tasks.detach("import", async move {
        let work = async {
            let names: BTreeSet<String> = named(&import).map(str::to_owned).collect();
            let report = register_all(&clients, &import.entries, &owner).await;
            for (name, reason) in &report.rejected {
                tell("import", name, reason);
            }
            tracing::info!(added = report.added.len(), kept = report.kept.len(), "imported");
            remove_stale(&clients, &names, &owner).await;
            imported.met();
        };
        tokio::select! { () = work => {}, () = shutdown.wait() => {} }
    });
}

/// Every name that the file speaks of, usable or not.
fn named(import: &Import) -> impl Iterator<Item = &str> {
    let entries = import.entries.iter().map(|entry| entry.name.as_str());
    entries.chain(import.rejected.iter().map(|rejected| rejected.name.as_str()))
}

/// Registers each, waiting out a registry that does not answer (yet).
async fn register_all(clients: &Clients, entries: &[Entry], owner: &str) -> ImportReport {
    let mut report = ImportReport::default();
    for entry in entries {
        let mut backoff = Backoff::random(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            match register(clients, entry, owner).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(backend = entry.name, %error, "registering again");
                    tokio::time::sleep(backoff.next()).await;
                }
                settled => break note(&mut report, entry, settled),
            }
        }
    }
    report
}

/// Registers each, once.
pub(crate) async fn register_once(clients: &Clients, entries: &[Entry], owner: &str) -> ImportReport {
    let mut report = ImportReport::default();
    for entry in entries {
        let settled = register(clients, entry, owner).await;
        note(&mut report, entry, settled);
    }
    report
}

/// True when the name is new.
async fn register(clients: &Clients, entry: &Entry, owner: &str) -> Result<bool, Error> {
    let registration = Registration {
        name: entry.name.clone(),
        kind: Kind::Backend.into(),
        owner: owner.to_owned(),
        labels: BTreeMap::from([(SOURCE.0.to_owned(), SOURCE.1.to_owned())]),
        spec: Some(proto::registry::registration::Spec::Backend(entry.spec.clone())),
        durability: Durability::Durable.into(),
        ..Registration::default()
    };
    clients.registry.register(registration, true).await.map(|answer| answer.created)
}

fn note(report: &mut ImportReport, entry: &Entry, settled: Result<bool, Error>) {
    let name = entry.name.clone();
    match settled {
        Ok(true) => report.added.push(name),
        Ok(false) => report.kept.push(name),
        Err(Error::AlreadyRegistered { owner, .. }) => {
            let reason = format!("{owner} has registered another server under this name");
            report.rejected.insert(name, reason);
        }
        Err(error) => {
            report.rejected.insert(name, error.to_string());
        }
    }
}

/// What this node imported earlier and its file does not name any more.
async fn remove_stale(clients: &Clients, names: &BTreeSet<String>, owner: &str) {
    let labels = BTreeMap::from([(SOURCE.0.to_owned(), SOURCE.1.to_owned())]);
    let filter = Filter { kind: Kind::Backend, labels, ..Filter::default() };
    // A registry that does not answer now is asked again at the next start.
    let Ok(listed) = clients.registry.list(&filter).await else { return };
    for stale in listed.iter().filter(|r| r.owner == owner && !names.contains(&r.name)) {
        let removed = clients.registry.deregister(&stale.name, owner, false).await;
        tracing::info!(backend = stale.name, ok = removed.is_ok(), "not in the file any more");
    }
}
