//! `swarm registry list|get|import|apply|export`

use super::{Api, source};
use crate::{
    api::{Action, Backend, Export, ExportRequest, ImportServer, Mode, Plan, PlanRequest, Registry, Step},
    cli::{ApplyArgs, ExportArgs, ImportArgs, ListArgs, OperatorArgs, PlanArgs, RegistryCommand},
    error::{CliError, Failure},
    export,
    import::Import,
    output::{Show, Table, print, to_stderr, to_stdout},
};

/// Runs one of them.
pub async fn registry(command: &RegistryCommand) -> Result<(), CliError> {
    match command {
        RegistryCommand::List(args) => list(args).await,
        RegistryCommand::Get { name, operator } => get(name, operator).await,
        RegistryCommand::Import(args) => import(args).await,
        RegistryCommand::Apply(args) => apply(args).await,
        RegistryCommand::Export(args) => export(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), CliError> {
    let path = format!("registry?{}", args.query());
    let registry: Registry = Api::new(&args.operator).get(&path).await?;
    print(args.operator.output, &registry);
    if let Some(next) = registry.next_page_token.filter(|_| !args.operator.output.is_data()) {
        to_stderr(&format!("more follow: the same with --page-token {next}"));
    }
    Ok(())
}

async fn get(name: &str, args: &OperatorArgs) -> Result<(), CliError> {
    proto::ids::check_name(name).map_err(|e| CliError::new(Failure::Usage, e.to_string()))?;
    let backend: Backend = Api::new(args).get(&format!("registry/{name}")).await?;
    print(args.output, &backend);
    Ok(())
}

async fn import(args: &ImportArgs) -> Result<(), CliError> {
    let read = source::read(&args.source, args.how.format, args.how.operator.timeout).await?;
    let read = if args.prefix.is_empty() { read } else { read.prefixed(&args.prefix) };
    let owner = "operator".to_owned();
    carry_out(&args.source, read, &args.how, |request| PlanRequest { owner, ..request }).await
}

async fn apply(args: &ApplyArgs) -> Result<(), CliError> {
    let read = source::read(&args.file, args.how.format, args.how.operator.timeout).await?;
    let (owner, prune) = (args.owner.clone(), args.prune);
    let mode = Mode::Apply;
    carry_out(&args.file, read, &args.how, |request| PlanRequest { owner, mode, prune, ..request }).await
}

/// Has the node make the plan, and unless it is only asked for, do it. Exit 1 when anything was
/// refused.
async fn carry_out(
    source: &str,
    read: Import,
    how: &PlanArgs,
    meant: impl FnOnce(PlanRequest) -> PlanRequest,
) -> Result<(), CliError> {
    let request = meant(PlanRequest {
        servers: read.entries.into_iter().map(ImportServer::from).collect(),
        mentioned: read.rejected.iter().map(|bad| bad.name.clone()).collect(),
        owner: String::new(),
        mode: Mode::Import,
        prune: false,
        show_secrets: how.show_secrets,
    });
    let body = serde_json::to_vec(&request).map_err(anyhow::Error::from)?;
    let path = if how.dry_run { "registry/plan" } else { "registry/apply" };
    let mut plan: Plan = Api::new(&how.operator).post(path, body.into()).await?;
    let bad = read.rejected.into_iter();
    plan.steps.extend(bad.map(|bad| Step { reason: bad.reason, ..Step::new(&bad.name, Action::Refused) }));
    for Step { name, reason, .. } in plan.steps.iter().filter(|step| step.action == Action::Refused) {
        to_stderr(&format!("warning: {source}: backend `{name}` is left out: {reason}"));
    }
    print(how.operator.output, &plan);
    if plan.count(Action::Refused) == 0 { Ok(()) } else { Err(CliError::told(Failure::Failed)) }
}

async fn export(args: &ExportArgs) -> Result<(), CliError> {
    let request = ExportRequest { show_secrets: args.show_secrets };
    let body = serde_json::to_vec(&request).map_err(anyhow::Error::from)?;
    let mut all: Export = Api::new(&args.operator).post("registry/export", body.into()).await?;
    if let Some(missing) = args.names.iter().find(|name| all.servers.iter().all(|s| s.name != **name)) {
        return Err(CliError::new(Failure::NotFound, format!("no backend is named `{missing}`")));
    }
    if !args.names.is_empty() {
        all.servers.retain(|server| args.names.contains(&server.name));
    }
    let text = export::render(&all.servers, args.format).map_err(anyhow::Error::from)?;
    to_stdout(text.trim_end());
    Ok(())
}

impl Plan {
    /// How many names something becomes of.
    fn count(&self, action: Action) -> usize {
        self.steps.iter().filter(|step| step.action == action).count()
    }

    /// "2 new, 1 the same"
    fn summary(&self) -> String {
        let words = [
            (Action::Add, "new"),
            (Action::Change, "changed"),
            (Action::Same, "the same"),
            (Action::Remove, "removed"),
            (Action::Refused, "refused"),
        ];
        let counts = words.map(|(action, word)| (self.count(action), word));
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
        let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
        if self.dry_run { format!("{parts} (dry run: nothing was changed)") } else { parts }
    }
}

impl Action {
    fn sign(self) -> char {
        match self {
            Action::Add => '+',
            Action::Change => '~',
            Action::Same => '=',
            Action::Remove => '-',
            Action::Refused => '!',
        }
    }
}

impl Show for Plan {
    fn table(&self, _wide: bool) -> String {
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        let line = |step: &Step| {
            let (sign, name) = (step.action.sign(), &step.name);
            format!("{sign} {name:<width$}  {}", details(step)).trim_end().to_owned()
        };
        let lines = self.steps.iter().map(line);
        lines.chain([self.summary()]).collect::<Vec<_>>().join("\n")
    }
}

fn details(step: &Step) -> String {
    let changes = step.changes.iter().map(|change| {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        format!("{} {} -> {}", change.field, side(&change.from), side(&change.to))
    });
    let parts = changes.chain([step.target.clone(), step.reason.clone()]);
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

impl Show for Registry {
    fn table(&self, wide: bool) -> String {
        if wide {
            return wide_table(&self.registrations);
        }
        if self.registrations.iter().any(|registration| registration.kind != "backend") {
            return table_of_kinds(&self.registrations);
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

/// What names of every kind have.
fn table_of_kinds(registrations: &[Backend]) -> String {
    let mut table = Table::new(["NAME", "KIND", "OWNER", "STATE", "LABELS"]);
    for registration in registrations {
        table.row([
            registration.name.clone(),
            registration.kind.clone(),
            registration.owner.clone(),
            registration.state.clone(),
            labels(registration),
        ]);
    }
    table.render()
}

/// "team=a zone=b"
fn labels(registration: &Backend) -> String {
    let pairs = registration.labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

fn wide_table(backends: &[Backend]) -> String {
    let head = [
        "BACKEND",
        "KIND",
        "STATE",
        "TRANSPORT",
        "ERA",
        "TOOLS",
        "CALLS",
        "ERRORS",
        "OWNER",
        "ZONE",
        "LABELS",
        "TARGET",
        "REASON",
    ];
    let mut table = Table::new(head);
    for backend in backends {
        table.row([
            backend.name.clone(),
            backend.kind.clone(),
            backend.state.clone(),
            backend.transport.clone(),
            backend.era.clone(),
            backend.tools.to_string(),
            backend.calls.to_string(),
            backend.errors.to_string(),
            backend.owner.clone(),
            backend.zone.clone(),
            labels(backend),
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
            ("zone", self.zone.clone()),
            ("labels", labels(self)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Change;

    #[test]
    fn a_plan_is_a_line_for_each_name_and_a_sum() {
        let change = Change { field: "url".into(), from: Some("http://a".into()), to: None };
        let plan = Plan {
            dry_run: true,
            steps: vec![
                Step { target: "uvx time".into(), ..Step::new("time", Action::Add) },
                Step { changes: vec![change], ..Step::new("docs-long", Action::Change) },
                Step::new("git", Action::Same),
                Step { reason: "no".into(), ..Step::new("bad", Action::Refused) },
            ],
        };
        let lines = "+ time       uvx time\n~ docs-long  url http://a -> (none)\n= git\n! bad        no\n\
                     1 new, 1 changed, 1 the same, 1 refused (dry run: nothing was changed)";
        assert_eq!(plan.table(false), lines);
        assert_eq!(Plan::default().table(false), "nothing to do");
    }
}
