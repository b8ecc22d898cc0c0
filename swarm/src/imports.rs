//! Imported backends on their way into the registry.

use crate::{
    admin::Clients,
    api::{Action, Mode, Plan, PlanRequest, Step},
    import::{Entry, Import},
    plan::{self, SOURCE, Task, Wanted},
    secret::Shown,
    up,
};
use kit::{backoff::Backoff, host::Context};
use proto::registry::{BackendSpec, Durability, Kind, Registration};
use registry_client::{Error, Filter};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What became of the entries of a file.
#[derive(Default)]
struct Report {
    added: usize,
    kept: usize,
    rejected: BTreeMap<String, String>,
}

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
            tracing::info!(added = report.added, kept = report.kept, "imported");
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
async fn register_all(clients: &Clients, entries: &[Entry], owner: &str) -> Report {
    let mut report = Report::default();
    for Entry { name, spec } in entries {
        let mut backoff = Backoff::random(Duration::from_millis(20), Duration::from_millis(500));
        let settled = loop {
            match register(clients, name, spec, owner, Mode::Import).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(backend = name, %error, "registering again");
                    tokio::time::sleep(backoff.next()).await;
                }
                settled => break settled,
            }
        };
        match settled {
            Ok(true) => report.added += 1,
            Ok(false) => report.kept += 1,
            Err(error) => {
                report.rejected.insert(name.clone(), reason(error));
            }
        }
    }
    report
}

/// What is to be done for a file, against what stands now.
pub(crate) async fn plan(clients: &Clients, request: PlanRequest) -> Result<Vec<Task>, Error> {
    let standing = clients.registry.list(&Filter::default()).await?;
    let entries: Vec<Entry> = request.servers.into_iter().map(Entry::from).collect();
    let wanted = Wanted {
        entries: &entries,
        mentioned: &request.mentioned,
        owner: &request.owner,
        mode: request.mode,
        prune: request.prune,
        shown: Shown::of(request.show_secrets),
    };
    Ok(plan::solve(&wanted, &standing))
}

/// Makes the plan and does it.
pub(crate) async fn apply(clients: &Clients, request: PlanRequest) -> Result<Plan, Error> {
    let (owner, mode) = (request.owner.clone(), request.mode);
    let tasks = plan(clients, request).await?;
    Ok(carry_out(clients, tasks, &owner, mode).await)
}

/// What the registry refuses, for somebody was faster, is refused in the answer.
async fn carry_out(clients: &Clients, tasks: Vec<Task>, owner: &str, mode: Mode) -> Plan {
    let mut plan = Plan::default();
    for Task { step, spec } in tasks {
        let done = match (step.action, &spec) {
            (Action::Remove, _) => clients.registry.deregister(&step.name, owner, false).await.map(drop),
            (_, Some(spec)) => register(clients, &step.name, spec, owner, mode).await.map(drop),
            (_, None) => Ok(()),
        };
        plan.steps.push(match done {
            Ok(()) => step,
            Err(error) => Step { reason: reason(error), ..Step::new(&step.name, Action::Refused) },
        });
    }
    plan
}

/// True when the name is new.
async fn register(
    clients: &Clients,
    name: &str,
    spec: &BackendSpec,
    owner: &str,
    mode: Mode,
) -> Result<bool, Error> {
    let registration = Registration {
        name: name.to_owned(),
        kind: Kind::Backend.into(),
        owner: owner.to_owned(),
        labels: BTreeMap::from([(SOURCE.to_owned(), mode.source().to_owned())]),
        spec: Some(proto::registry::registration::Spec::Backend(spec.clone().into())),
        durability: Durability::Durable.into(),
        ..Registration::default()
    };
    clients.registry.register(registration, true).await.map(|answer| answer.created)
}

fn reason(error: Error) -> String {
    match error {
        Error::AlreadyRegistered { owner, .. } => {
            format!("{owner} has registered another server under this name")
        }
        error => error.to_string(),
    }
}

/// What this node imported earlier and its file does not name any more.
async fn remove_stale(clients: &Clients, names: &BTreeSet<String>, owner: &str) {
    let labels = BTreeMap::from([(SOURCE.to_owned(), Mode::Import.source().to_owned())]);
    let filter = Filter { kind: Kind::Backend, labels, ..Filter::default() };
    // A registry that does not answer now is asked again at the next start.
    let Ok(listed) = clients.registry.list(&filter).await else { return };
    for stale in listed.iter().filter(|r| r.owner == owner && !names.contains(&r.name)) {
        let removed = clients.registry.deregister(&stale.name, owner, false).await;
        tracing::info!(backend = stale.name, ok = removed.is_ok(), "not in the file any more");
    }
}
