//! `swarm flags ...`

use crate::cli::OperatorArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `swarm flags ...`
#[derive(Debug, Subcommand)]
pub enum FlagsCommand {
    /// Every flag: what it is, from where, and whether it can be set in this build
    List(ReachArgs),
    /// One flag, in full
    Get {
        /// Its key
        key: String,
        /// How to reach the node and print.
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Set a flag, for all or for some
    Set {
        /// Its key
        key: String,
        /// The variant; `default` removes the setting
        variant: String,
        /// Only for this share of targeting keys; the others keep what holds for all
        #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: Option<u8>,
        /// Only for these tenants
        #[arg(long, value_name = "TENANT", value_delimiter = ',')]
        tenant: Vec<String>,
        /// Set back what builds on the flag, instead of refusing
        #[arg(long)]
        cascade: bool,
        /// Why, and who.
        #[command(flatten)]
        because: Because,
        /// How to reach the node and print.
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Make a flag safe at once, whatever else is set; or throw a switch such as kill.tool-calls
    Kill {
        /// The flag's key, or a switch with or without its `kill.`
        key: String,
        /// Take the kill back
        #[arg(long)]
        lift: bool,
        /// Why, and who.
        #[command(flatten)]
        because: Because,
        /// How to reach the node and print.
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Who changed what, when and why; the newest first
    History {
        /// Of one flag
        key: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
        /// How to reach the node and print.
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Set all flags of a phase's preset, such as phases/1-sharding.toml
    Apply {
        /// The preset
        file: PathBuf,
        /// Why, and who.
        #[command(flatten)]
        because: Because,
        /// How to reach the node and print.
        #[command(flatten)]
        reach: ReachArgs,
    },
}

/// What the audit records.
#[derive(Debug, Clone, Args)]
pub struct Because {
    /// Why; recorded
    #[arg(long)]
    pub reason: String,
    /// Who; recorded
    #[arg(long, env = "USER", default_value = "unnamed", hide_env_values = true)]
    pub actor: String,
    /// Refuse when the flags are at another revision
    #[arg(long, value_name = "N")]
    pub expected_revision: Option<u64>,
}

/// Which nodes.
#[derive(Debug, Clone, Args)]
pub struct ReachArgs {
    /// Only the node at --endpoint, not the others that it knows
    #[arg(long)]
    pub single_address: bool,
    /// How to reach the node and print.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

impl FlagsCommand {
    /// How the node is reached.
    pub fn operator(&self) -> &OperatorArgs {
        match self {
            FlagsCommand::List(reach)
            | FlagsCommand::Get { reach, .. }
            | FlagsCommand::Set { reach, .. }
            | FlagsCommand::Kill { reach, .. }
            | FlagsCommand::Apply { reach, .. } => &reach.operator,
            FlagsCommand::History { operator, .. } => operator,
        }
    }
}
