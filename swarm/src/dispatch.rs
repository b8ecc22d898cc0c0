//! From the command line to what it asks for.

use crate::{
    cli::{Cli, Command, OperatorArgs, SessionsCommand, ToolsCommand},
    demo,
    error::{CliError, Failure},
    example_server, ops,
    output::Format,
    stdio,
    up::{self, Service},
};
use std::process::ExitCode;

/// Does what was asked for and gives the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let command = match cli.command {
        Command::BackendExec(raw) => return transport_edge::backend::exec::main(raw.args),
        command => command,
    };
    let format = format_of(&command);
    let result = runtime(&command).and_then(|runtime| {
        let result = runtime.block_on(dispatch(command));
        // A read of stdin cannot be cancelled: do not wait for it.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(format),
    }
}

/// Nodes get all cores; the demo spawns its nodes from the one thread that lives as long as it
/// does, because the kernel ties a child's death to that of the thread that started it.
fn runtime(command: &Command) -> Result<tokio::runtime::Runtime, CliError> {
    let mut builder = match command {
        Command::Demo(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Failure::Failed, "cannot start the runtime").cause(error))
}

async fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Up(args) => up::run(&args, &up::ALL).await,
        Command::Gossip(args) => up::run(&args, &[Service::Gossip]).await,
        Command::Registry { command: None, service } => up::run(&service, &[Service::Registry]).await,
        Command::Session(args) => up::run(&args, &[Service::Session]).await,
        Command::Coordinator(args) => up::run(&args, &[Service::Coordinator]).await,
        Command::Edge(args) => up::run(&args, &[Service::Edge]).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Stdio(args) => stdio::run(&args).await,
        Command::Registry { command: Some(command), .. } => ops::registry(&command).await,
        Command::Status(args) => ops::status(&args).await,
        Command::Members(args) => ops::members(&args).await,
        Command::Tools(command) => ops::tools(&command).await,
        Command::Call(args) => ops::call(&args).await,
        Command::Sessions(command) => ops::sessions(&command).await,
        Command::Flags(command) => crate::flags::run(&command).await,
        Command::Check(args) => ops::check(&args).await,
        Command::Config(command) => ops::config(&command),
        Command::Healthcheck(args) => ops::healthcheck(&args).await,
        Command::ExampleServer(raw) => example(raw.args).await,
        Command::BackendExec(_) => Ok(()),
    }
}

async fn example(args: Vec<std::ffi::OsString>) -> Result<(), CliError> {
    example_server::run_raw(args).await.map_err(|error| match error.downcast::<clap::Error>() {
        // Its own help and usage, with its own exit code.
        Ok(usage) => usage.exit(),
        Err(error) => CliError::from(error),
    })
}

/// The form in which errors are told: that of the data.
fn format_of(command: &Command) -> Format {
    operator(command).map_or(Format::Table, |operator| operator.output)
}

fn operator(command: &Command) -> Option<&OperatorArgs> {
    match command {
        Command::Status(args) | Command::Members(args) => Some(args),
        Command::Registry { command: Some(command), .. } => Some(command.operator()),
        Command::Tools(ToolsCommand::List(args)) => Some(args),
        Command::Sessions(SessionsCommand::List(args)) => Some(args),
        Command::Call(args) => Some(&args.operator),
        Command::Flags(command) => Some(command.operator()),
        Command::Check(args) => Some(&args.operator),
        _ => None,
    }
}
