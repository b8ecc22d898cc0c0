//! A service's process as its supervisor sees it: ready line, signals, exit codes.

#![allow(clippy::unwrap_used)]

use clap::Parser;
use kit::{
    config::Section,
    run::{ServiceArgs, report, try_service},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// A task that never ends keeps the drain waiting.
    stuck: bool,
    fail: bool,
    limit: i32,
}

impl Section for Config {
    const NAME: &'static str = "edge";

    fn check(&self) -> Result<(), String> {
        if self.limit < 0 { Err(format!("limit = {}: must not be negative", self.limit)) } else { Ok(()) }
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    service: ServiceArgs,
}

/// The service, in a process of its own.
#[test]
fn child_serves() {
    let Ok(line) = env::var("KIT_TEST_ARGS") else { return };
    let cli = Cli::parse_from(["service"].into_iter().chain(line.split_whitespace()));
    let ended = try_service(&cli.service, &[], |config: Config, node| async move {
        anyhow::ensure!(!config.fail, "told to fail");
        if config.stuck {
            node.context.tasks.spawn("stuck", std::future::pending::<()>());
        }
        let follow = node.directory.follow(node.context.announce.clone());
        node.context.tasks.background("directory", follow);
        node.context.announce.set(node.context.instance("edge"));
        Ok(vec![("gossip", "127.0.0.1:1".to_owned()), ("mcp", "http://127.0.0.1:2/mcp".to_owned())])
    });
    std::process::exit(report(&ended).into());
}

struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    fn start(args: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_serves", "--nocapture", "--quiet"])
            .env("KIT_TEST_ARGS", format!("--admin 127.0.0.1:0 --grpc 127.0.0.1:0 {args}"))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn ready(&mut self) -> String {
        let lines = self.out.by_ref().lines().map_while(Result::ok);
        lines.into_iter().find_map(|line| line.find("ready name=").map(|at| line[at..].to_owned())).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait_for_log(&mut self, words: &str) {
        let mut lines = BufReader::new(self.child.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(words)), "no {words:?} in the log");
    }

    fn end(mut self) -> (i32, String) {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code().unwrap(), errors)
    }
}

fn config(dir: &Path, text: &str) -> String {
    let path = dir.join("swarm.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_service_says_ready_writes_its_endpoints_and_drains_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("n7");
    let mut process = Process::start(&format!("--name n7 --data {}", data.display()));
    let ready = process.ready();
    let keys: Vec<_> = ready.split(' ').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    assert_eq!(keys, ["name", "mcp", "admin", "grpc", "gossip"]);
    assert!(ready.starts_with("ready name=n7 mcp=http://127.0.0.1:2/mcp admin=http://127.0.0.1:"), "{ready}");
    let endpoints: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(data.join("endpoints.json")).unwrap()).unwrap();
    assert!(ready.contains(&format!("grpc={} ", endpoints["grpc"].as_str().unwrap())), "{ready} {endpoints}");
    process.signal(Signal::TERM);
    let (code, errors) = process.end();
    assert_eq!(code, 0, "{errors}");
    assert!(!data.join("endpoints.json").exists());
}

#[test]
fn a_second_signal_aborts() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "[edge]\nstuck = true\n[node]\ndrain = \"1h\"\n");
    let mut process = Process::start(&format!("--data :memory: --config {file}"));
    process.ready();
    process.signal(Signal::INT);
    process.wait_for_log("draining");
    process.signal(Signal::TERM);
    let (code, errors) = process.end();
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("error: aborted by a second signal"), "{errors}");
}

#[test]
fn a_wrong_configuration_ends_with_78_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "[edge]\nstcuk = true\n");
    let (code, errors) = Process::start(&format!("--config {file}")).end();
    assert_eq!(code, 78);
    let line = format!("error: {file}:2:1: unknown key `stcuk` in [edge]; did you mean `stuck`?\n");
    assert_eq!(errors, line);
    let file = config(dir.path(), "[edge]\nlimit = -1\n");
    let (code, errors) = Process::start(&format!("--data :memory: --config {file}")).end();
    assert_eq!((code, errors.as_str()), (78, "error: edge: limit = -1: must not be negative\n"));
    let (code, errors) = Process::start("--data :memory: --expect 2").end();
    assert_eq!((code, errors.as_str()), (78, "error: node.expect = \"2\": must be 1, 3 or 5\n"));
}

#[test]
fn a_service_that_does_not_start_ends_with_1_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "[edge]\nfail = true\n");
    let (code, errors) = Process::start(&format!("--data :memory: --config {file}")).end();
    assert_eq!((code, errors.as_str()), (1, "error: told to fail\n"));
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--data {}", dir.path().display());
    let mut first = Process::start(&args);
    first.ready();
    let (code, errors) = Process::start(&args).end();
    assert_eq!(code, 1);
    assert!(errors.contains("is in use by another process"), "{errors}");
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, 0);
}
