//! `swarm config validate|print`

use crate::{
    cli::{ConfigArgs, ConfigCommand},
    config::Config,
    error::{CliError, Failure},
    output::to_stdout,
};

/// Runs one of them.
pub fn config(command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Validate(args) => validate(args),
        ConfigCommand::Print(args) => {
            let config = Config::of_file(args.config.as_deref())?;
            let text = toml::to_string(&config)
                .map_err(|error| CliError::new(Failure::Failed, error.to_string()))?;
            to_stdout(text.trim_end());
            Ok(())
        }
    }
}

fn validate(args: &ConfigArgs) -> Result<(), CliError> {
    let config = Config::of_file(args.config.as_deref())?;
    to_stdout(&valid(args.config.as_deref(), &config));
    Ok(())
}

/// "config swarm.toml is valid (sha256:...)"
pub(super) fn valid(file: Option<&std::path::Path>, config: &Config) -> String {
    let name = file.map_or("(defaults)".to_owned(), |file| file.display().to_string());
    format!("config {name} is valid (sha256:{})", kit::config::sha256(config))
}
