//! `swarm registry ...`

use super::OperatorArgs;
use crate::{api::listing, export, import, url};
use clap::{Args, Subcommand};

/// `swarm registry ...`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Every backend, its state and why; or what filters let through
    List(ListArgs),
    /// One backend
    Get {
        /// Its name
        name: String,
        /// How to reach the node and print.
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Register the servers of a file, or of an MCP registry
    Import(ImportArgs),
    /// Make the registry equal to a file, for what its owner applied before
    Apply(ApplyArgs),
    /// Write the backends as the file of a client
    Export(ExportArgs),
}

/// `swarm registry list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this kind; `any` is backends, agents and workers
    #[arg(long, default_value = "backend", value_parser = listing::kind_word)]
    pub kind: String,
    /// Only names that begin with this
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only what has this label; given more than once, all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = listing::label_words)]
    pub label: Vec<String>,
    /// Only backends with a tool of this name, as the backend itself calls it
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Only backends reached by `stdio` or `http`
    #[arg(long, value_name = "HOW")]
    pub transport: Option<String>,
    /// Only backends of this zone
    #[arg(long)]
    pub zone: Option<String>,
    /// At most this many (1 to 1000); by default all
    #[arg(long, value_name = "N", value_parser = listing::limit)]
    pub limit: Option<u32>,
    /// Go on where a limit ended a list: the `next_page_token` of that answer
    #[arg(long, value_name = "TOKEN")]
    pub page_token: Option<String>,
    /// How to reach the node and print.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

impl ListArgs {
    /// The query of `GET /api/v1/registry`.
    pub fn query(&self) -> String {
        let given = [
            ("prefix", self.prefix.clone()),
            ("tool", self.tool.clone()),
            ("transport", self.transport.clone()),
            ("zone", self.zone.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("page_token", self.page_token.clone()),
        ];
        let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let labels = self.label.iter().map(|label| ("label", label.clone()));
        url::query([("kind", self.kind.clone())].into_iter().chain(given).chain(labels))
    }
}

/// `swarm registry import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file (Claude, Cursor, VS Code, Codex, Gemini, server.json), `-` for stdin, or the
    /// http:// URL of an MCP registry
    pub source: String,
    /// What comes in front of every name
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub prefix: String,
    /// How it is read and done.
    #[command(flatten)]
    pub how: PlanArgs,
}

/// `swarm registry apply`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A file in any form that import reads, or `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: String,
    /// Remove what this owner applied before and the file does not name any more
    #[arg(long)]
    pub prune: bool,
    /// Whose servers these are; each owner changes and removes only its own
    #[arg(long, default_value = "operator", value_name = "NAME")]
    pub owner: String,
    /// How it is read and done.
    #[command(flatten)]
    pub how: PlanArgs,
}

/// What import and apply have in common.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Form of the file; by default it is known by what is in it
    #[arg(long, value_enum)]
    pub format: Option<import::Form>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Show the values of environments and headers
    #[arg(long)]
    pub show_secrets: bool,
    /// How to reach the node and print.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// `swarm registry export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only these backends
    pub names: Vec<String>,
    /// Form of the file
    #[arg(long, value_enum, default_value_t)]
    pub format: export::Form,
    /// Write the values of environments and headers; else each is a variable, `${NAME}`
    #[arg(long)]
    pub show_secrets: bool,
    /// How to reach the node.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

impl RegistryCommand {
    /// How to reach the node and print.
    pub fn operator(&self) -> &OperatorArgs {
        match self {
            RegistryCommand::List(args) => &args.operator,
            RegistryCommand::Get { operator, .. } => operator,
            RegistryCommand::Import(args) => &args.how.operator,
            RegistryCommand::Apply(args) => &args.how.operator,
            RegistryCommand::Export(args) => &args.operator,
        }
    }
}
