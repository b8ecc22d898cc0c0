//! `swarm check`

use super::{Api, config::valid};
use crate::{
    api::{Check, CheckGroup, CheckResult, CheckStatus},
    cli::CheckArgs,
    config::Config,
    error::{CliError, Failure},
    output::{Show, count, print},
};
use bytes::Bytes;
use kit::clock::{Clock, SystemClock};
use rustix::process::{Resource, getrlimit};
use std::{path::Path, time::Duration};

/// Descriptors that 10 000 connections want.
const WANTED_FILES: u64 = 65_536;
const PAUSE: Duration = Duration::from_millis(500);

/// Prints every check; exit 1 when one found an error, 124 when `--wait` ran out.
pub async fn check(args: &CheckArgs) -> Result<(), CliError> {
    let clock = SystemClock;
    let give_up = args.wait.map(|wait| clock.now() + wait);
    loop {
        let checked = once(args).await;
        let good = matches!(&checked, Ok(check) if check.worst() < CheckStatus::Error);
        match give_up {
            Some(end) if !good && clock.now() < end => tokio::time::sleep(PAUSE).await,
            _ => return told(args, checked?),
        }
    }
}

fn told(args: &CheckArgs, check: Check) -> Result<(), CliError> {
    print(args.operator.output, &check);
    match (check.worst(), args.wait) {
        (CheckStatus::Ok | CheckStatus::Warning, _) => Ok(()),
        (CheckStatus::Error, None) => Err(CliError::told(Failure::Failed)),
        (CheckStatus::Error, Some(_)) => Err(CliError::told(Failure::TimedOut)),
    }
}

async fn once(args: &CheckArgs) -> Result<Check, CliError> {
    let mut check = Check { groups: vec![preflight(args)] };
    if !args.pre {
        let of_node: Check = Api::new(&args.operator).post("check", Bytes::from_static(b"{}")).await?;
        check.groups.extend(of_node.groups);
    }
    Ok(check)
}

fn preflight(args: &CheckArgs) -> CheckGroup {
    let mut results = vec![config(args.config.as_deref()), open_files()];
    if args.pre {
        results.extend(ports());
    }
    CheckGroup { name: "preflight".to_owned(), results }
}

fn config(file: Option<&Path>) -> CheckResult {
    match Config::of_file(file) {
        Ok(config) => CheckResult::ok(valid(file, &config)),
        Err(error) => CheckResult::error(error.message, "swarm config validate --config FILE"),
    }
}

fn open_files() -> CheckResult {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit >= WANTED_FILES {
        return CheckResult::ok(format!("open files limit {limit}"));
    }
    let words = format!("open files limit {limit}, want ≥ {WANTED_FILES} for 10k connections");
    CheckResult::warning(words, "ulimit -n, or LimitNOFILE= of the unit")
}

/// Before a node runs, its ports must be free.
fn ports() -> Vec<CheckResult> {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let check = |(what, port): (&str, u16)| {
        if free(port) {
            return CheckResult::ok(format!("port {port} ({what}) is free"));
        }
        let hint = format!("give the node another --{what}");
        CheckResult::warning(format!("port {port} ({what}) is taken"), hint)
    };
    [("mcp", 7700), ("admin", 7600), ("grpc", 7610)].into_iter().map(check).collect()
}

impl Check {
    /// The worst result.
    pub fn worst(&self) -> CheckStatus {
        let results = self.groups.iter().flat_map(|group| &group.results);
        results.map(|result| result.status).max().unwrap_or(CheckStatus::Ok)
    }

    fn number(&self, status: CheckStatus) -> usize {
        let results = self.groups.iter().flat_map(|group| &group.results);
        results.filter(|result| result.status == status).count()
    }
}

fn mark(status: CheckStatus) -> &'static str {
    match status {
        CheckStatus::Ok => "√",
        CheckStatus::Warning => "‼",
        CheckStatus::Error => "×",
    }
}

impl Show for Check {
    fn table(&self, _wide: bool) -> String {
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push(group.name.clone());
            lines.push("-".repeat(group.name.chars().count()));
            lines.extend(group.results.iter().map(line));
        }
        let (errors, warnings) = (self.number(CheckStatus::Error), self.number(CheckStatus::Warning));
        let found = match (errors, warnings) {
            (0, 0) => String::new(),
            (0, warnings) => format!(" ({})", count(warnings, "warning")),
            (errors, 0) => format!(" ({})", count(errors, "error")),
            (errors, warnings) => format!(" ({}, {})", count(errors, "error"), count(warnings, "warning")),
        };
        lines.push(format!("Status check results are {}{found}", mark(self.worst())));
        lines.join("\n")
    }
}

fn line(result: &CheckResult) -> String {
    let text = format!("{} {}", mark(result.status), result.message);
    match &result.hint {
        Some(hint) => format!("{text:<64} → {hint}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_errors_and_warnings() {
        let results = vec![
            CheckResult::ok("fine"),
            CheckResult::warning("so so", "look"),
            CheckResult::error("broken", "mend"),
        ];
        let check = Check { groups: vec![CheckGroup { name: "cluster".into(), results }] };
        let shown = check.table(false);
        assert!(shown.starts_with("cluster\n-------\n√ fine\n‼ so so"), "{shown}");
        assert!(shown.ends_with("Status check results are × (1 error, 1 warning)"), "{shown}");
    }
}
