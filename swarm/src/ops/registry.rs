//! `swarm registry list|get|import`

use super::Api;
use crate::{
    api::{Backend, ImportReport, ImportRequest, ImportServer, Registry},
    cli::{OperatorArgs, RegistryCommand},
    error::{CliError, Failure},
    import::{self, Import},
    output::{Show, Table, print, to_stderr},
};
use std::path::Path;

/// Runs one of them.
pub async fn registry(command: &RegistryCommand) -> Result<(), CliError> {
    match command {
        RegistryCommand::List(args) => list(args).await,
        RegistryCommand::Get { name, operator } => get(name, operator).await,
        RegistryCommand::Import { file, dry_run, operator } => import(file, *dry_run, operator).await,
    }
}

async fn list(args: &OperatorArgs) -> Result<(), CliError> {
    let registry: Registry = Api::new(args).get("registry").await?;
    print(args.output, &registry);
    Ok(())
}

async fn get(name: &str, args: &OperatorArgs) -> Result<(), CliError> {
    proto::ids::check_name(name).map_err(|e| CliError::new(Failure::Usage, e.to_string()))?;
    let backend: Backend = Api::new(args).get(&format!("registry/{name}")).await?;
    print(args.output, &backend);
    Ok(())
}

/// Exit 1 when an entry was left out.
async fn import(file: &Path, dry_run: bool, args: &OperatorArgs) -> Result<(), CliError> {
    let Import { entries, rejected } =
        import::read(file).map_err(|error| CliError::new(Failure::Failed, error.to_string()))?;
    let api = Api::new(args);
    let mut report = if dry_run {
        plan(&api, entries.iter().map(|entry| entry.name.clone()).collect()).await?
    } else {
        let servers: Vec<ImportServer> = entries.into_iter().map(ImportServer::from).collect();
        let body = serde_json::to_vec(&ImportRequest { servers }).map_err(anyhow::Error::from)?;
        api.post("registry/import", body.into()).await?
    };
    report.rejected.extend(rejected.into_iter().map(|bad| (bad.name, bad.reason)));
    for (name, reason) in &report.rejected {
        to_stderr(&format!("warning: {}: backend `{name}` is left out: {reason}", file.display()));
    }
    print(args.output, &report);
    if report.rejected.is_empty() { Ok(()) } else { Err(CliError::told(Failure::Failed)) }
}

/// What an import would do, by name only.
async fn plan(api: &Api, names: Vec<String>) -> Result<ImportReport, CliError> {
    let registry: Registry = api.get("registry").await?;
    let stands = |name: &String| registry.registrations.iter().any(|b| b.name == *name);
    let (kept, added) = names.into_iter().partition(stands);
    Ok(ImportReport { added, kept, ..ImportReport::default() })
}

impl Show for Registry {
    fn table(&self, wide: bool) -> String {
        if wide {
            return wide_table(&self.registrations);
        }
        let mut table = Table::new(["BACKEND", "STATE", "TRANSPORT", "TOOLS", "REASON"]);
        for backend in &self.registrations {
            table.row([
                backend.name.clone(),
                backend.state.clone(),
                backend.transport.clone(),
                backend.tools.to_string(),
                backend.reason.clone(),
            ]);
        }
        table.render()
    }
}

fn wide_table(backends: &[Backend]) -> String {
    let head =
        ["BACKEND", "STATE", "TRANSPORT", "ERA", "TOOLS", "CALLS", "ERRORS", "OWNER", "TARGET", "REASON"];
    let mut table = Table::new(head);
    for backend in backends {
        table.row([
            backend.name.clone(),
            backend.state.clone(),
            backend.transport.clone(),
            backend.era.clone(),
            backend.tools.to_string(),
            backend.calls.to_string(),
            backend.errors.to_string(),
            backend.owner.clone(),
            backend.target.clone(),
            backend.reason.clone(),
        ]);
    }
    table.render()
}

impl Show for Backend {
    fn table(&self, _wide: bool) -> String {
        let edges = self.edges.iter().map(|(edge, state)| format!("{edge} {state}"));
        let rows = [
            ("name", self.name.clone()),
            ("transport", self.transport.clone()),
            ("target", self.target.clone()),
            ("owner", self.owner.clone()),
            ("state", self.state.clone()),
            ("reason", self.reason.clone()),
            ("era", self.era.clone()),
            (
                "offers",
                format!("{} tools, {} prompts, {} resources", self.tools, self.prompts, self.resources),
            ),
            ("served", format!("{} calls, {} errors, {} restarts", self.calls, self.errors, self.restarts)),
            ("edges", edges.collect::<Vec<_>>().join(", ")),
        ];
        let lines = rows.into_iter().filter(|(_, value)| !value.is_empty());
        lines.map(|(name, value)| format!("{name:<10} {value}")).collect::<Vec<_>>().join("\n")
    }
}

impl Show for ImportReport {
    fn table(&self, _wide: bool) -> String {
        let added = self.added.iter().map(|name| format!("+ {name}"));
        let kept = self.kept.iter().map(|name| format!("= {name}"));
        let rejected = self.rejected.iter().map(|(name, reason)| format!("! {name}: {reason}"));
        added.chain(kept).chain(rejected).collect::<Vec<_>>().join("\n")
    }
}
