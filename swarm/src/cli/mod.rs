//! The command line.

mod node_args;
mod registry;

pub use node_args::NodeArgs;
pub use registry::{ApplyArgs, ExportArgs, ImportArgs, ListArgs, PlanArgs, RegistryCommand};

use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Default admin URL of the operator's commands.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7600";

/// One MCP endpoint in front of a fleet of MCP servers.
#[derive(Debug, Parser)]
#[command(name = "swarm", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: all five services in one process
    Up(Box<NodeArgs>),
    /// Three nodes on this machine, one killed before your eyes
    Demo(DemoArgs),
    /// Bridge for hosts that only speak stdio
    Stdio(StdioArgs),
    /// How the cluster is: health, leader, nodes, backends, sessions
    Status(OperatorArgs),
    /// The nodes of the cluster
    Members(OperatorArgs),
    /// Backends: list, get, import, apply, export; without a subcommand: run registry-svc alone
    #[command(args_conflicts_with_subcommands = true)]
    Registry {
        /// An operator's command.
        #[command(subcommand)]
        command: Option<RegistryCommand>,
        /// Options of the service.
        #[command(flatten)]
        service: Box<NodeArgs>,
    },
    /// The tools of all backends
    #[command(subcommand)]
    Tools(ToolsCommand),
    /// Call a tool through the MCP endpoint
    Call(CallArgs),
    /// Open sessions
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Feature flags: list, get, set, kill, history, apply
    #[command(subcommand)]
    Flags(crate::flags::FlagsCommand),
    /// Check this machine and the cluster, with a real test commit
    Check(CheckArgs),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Exit 0 when the node beside it is ready
    Healthcheck(HealthArgs),
    /// Run gossip-svc alone
    Gossip(Box<NodeArgs>),
    /// Run session-svc alone
    Session(Box<NodeArgs>),
    /// Run coordinator-svc alone
    Coordinator(Box<NodeArgs>),
    /// Run transport-edge alone
    Edge(Box<NodeArgs>),
    /// A small real MCP server, for trying things out
    ExampleServer(RawArgs),
    /// Runs a backend so that it never outlives its node
    #[command(hide = true)]
    BackendExec(RawArgs),
}

/// Arguments that another parser takes.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RawArgs {
    /// As given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    pub args: Vec<std::ffi::OsString>,
}

/// How operator commands reach a node and print.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    /// Admin URL of any node
    #[arg(long, env = "SWARM_ENDPOINT", default_value = DEFAULT_ENDPOINT, value_name = "URL")]
    pub endpoint: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Give up after this long
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// `swarm tools ...`
#[derive(Debug, Subcommand)]
pub enum ToolsCommand {
    /// Every tool
    List(OperatorArgs),
}

/// `swarm sessions ...`
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Every open session, whichever edge holds it
    List(OperatorArgs),
}

/// `swarm config ...`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file; exit 78 when it is not valid
    Validate(ConfigArgs),
    /// Print what is in force: defaults, file, environment
    Print(ConfigArgs),
}

/// Which file.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `swarm call`
#[derive(Debug, Args)]
pub struct CallArgs {
    /// The tool, e.g. time_get_current_time
    pub tool: String,
    /// Arguments, typed by the tool's input schema
    #[arg(value_name = "KEY=VALUE", conflicts_with = "json")]
    pub arguments: Vec<String>,
    /// All arguments as one JSON object
    #[arg(long, value_name = "ARGS")]
    pub json: Option<String>,
    /// MCP URL; by default the node's own
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How to reach the node and print.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// `swarm check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only what can be checked before a node runs
    #[arg(long)]
    pub pre: bool,
    /// The configuration file to check
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Repeat until there is no error, this long at most
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// How to reach the node and print.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// `swarm healthcheck`
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Admin URL; by default that of the node in --data, else the default port
    #[arg(long, env = "SWARM_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Data directory of the node, where its endpoints.json lies
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Name of the node, for its default data directory
    #[arg(long)]
    pub name: Option<String>,
    /// Configuration file of the node
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only ask whether something listens there
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["endpoint", "data", "name", "config"])]
    pub tcp: Option<SocketAddr>,
}

/// `swarm stdio`
#[derive(Debug, Args)]
pub struct StdioArgs {
    /// MCP URL; by default that of the node that runs on this machine, else a node of its own
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Extra header for every request, `Name: value`
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Servers for a node of its own
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub import: Option<PathBuf>,
    /// Admin URL of the node that runs on this machine
    #[arg(long, env = "SWARM_ENDPOINT", default_value = DEFAULT_ENDPOINT, value_name = "URL")]
    pub endpoint: String,
}

/// `swarm demo`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    /// Control a running demo.
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
    /// Stop after the steps: exit 0 if all held, 1 else
    #[arg(long)]
    pub once: bool,
    /// Address of the load balancer in front of the three nodes
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDR")]
    pub mcp: SocketAddr,
    /// Address of the console
    #[arg(long, default_value = "127.0.0.1:7600", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// Servers to use instead of those found on this machine
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,
}

/// Control of a running demo.
#[derive(Debug, Subcommand)]
pub enum DemoCommand {
    /// Kill a node (SIGKILL)
    Kill {
        /// n1, n2 or n3
        node: String,
    },
    /// Start a killed node again
    Start {
        /// n1, n2 or n3
        node: String,
    },
}

/// "500ms", "60s", "2m".
fn duration(text: &str) -> Result<Duration, String> {
    kit::config::duration::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn registry_is_a_service_and_an_operators_command() {
        let service = Cli::try_parse_from(["swarm", "registry", "--grpc", "127.0.0.1:0"]);
        let service = service.expect("runs the service").command;
        assert!(matches!(service, Command::Registry { command: None, .. }));
        assert_eq!(list(&["-o", "json"]).expect("lists").operator.output, Format::Json);
    }

    fn list(args: &[&str]) -> Result<ListArgs, String> {
        let cli = Cli::try_parse_from([&["swarm", "registry", "list"], args].concat());
        match cli.map_err(|error| error.to_string())?.command {
            Command::Registry { command: Some(RegistryCommand::List(args)), .. } => Ok(args),
            other => panic!("not a list: {other:?}"),
        }
    }

    #[test]
    fn the_filters_of_a_list_become_a_query() {
        assert_eq!(list(&[]).expect("all backends").query(), "kind=backend");
        let line = "--kind any --prefix t --label a=b --label c== --tool now --transport http --zone z1 \
            --limit 2 --page-token 0a";
        let args: Vec<&str> = line.split_whitespace().collect();
        let wanted = "kind=any&prefix=t&tool=now&transport=http&zone=z1&limit=2&page_token=0a\
            &label=a%3Db&label=c%3D%3D";
        assert_eq!(list(&args).expect("a list").query(), wanted);
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_told_before_a_node_is_asked() {
        let refusal = |args: &[&str]| list(args).expect_err("refused");
        let words = "kind is \"bakend\"; backend, agent, worker, property, counter or any are meant";
        assert!(refusal(&["--kind", "bakend"]).contains(words), "{}", refusal(&["--kind", "bakend"]));
        assert!(refusal(&["--label", "team"]).contains("label is \"team\"; KEY=VALUE is meant"));
        assert!(refusal(&["--limit", "0"]).contains("limit is \"0\"; 1 to 1000 is meant"));
    }

    #[test]
    fn up_takes_every_documented_option() {
        let line = "swarm up --config swarm.toml --name n1 --data :memory: --mcp 127.0.0.1:0 \
            --mcp-tcp 127.0.0.1:0 --admin 127.0.0.1:0 --grpc 127.0.0.1:0 --gossip 127.0.0.1:0 \
            --join 127.0.0.1:1,127.0.0.1:2 --expect 3 --nats nats://127.0.0.1:4222 \
            --import .mcp.json --profile wan";
        let Command::Up(up) = Cli::try_parse_from(line.split_whitespace()).expect("parses").command else {
            panic!("not up");
        };
        assert_eq!(up.process.join, ["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!(up.process.expect, Some(3));
    }

    #[test]
    fn demo_is_also_controlled_by_subcommands() {
        let kill = Cli::try_parse_from(["swarm", "demo", "kill", "n3"]).expect("parses").command;
        assert!(matches!(kill, Command::Demo(DemoArgs { command: Some(DemoCommand::Kill { .. }), .. })));
    }
}
