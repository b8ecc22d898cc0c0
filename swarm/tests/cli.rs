//! Command lines, exit codes, and what goes to which stream.

mod common;

use common::{run, stderr, stdout, swarm};
use serde_json::Value;

#[test]
fn usage_errors_exit_2() {
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(run(&["up", "--expect", "many"]).status.code(), Some(2));
    assert_eq!(run(&["call"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn nobody_there_is_exit_4_with_a_hint() {
    let output = run(&["status", "--endpoint", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("hint: is a node running?"), "{}", stderr(&output));
}

#[test]
fn errors_in_json_mode_are_one_object_on_stderr() {
    let output = run(&["members", "-o", "json", "--endpoint", "127.0.0.1:9"]);
    assert_eq!(stdout(&output), "");
    let error: Value = serde_json::from_slice(&output.stderr).expect("json");
    assert_eq!(error["error"]["code"], "unreachable");
    assert!(error["error"]["message"].is_string() && error["error"]["hint"].is_string());
}

#[test]
fn the_endpoint_may_come_from_the_environment() {
    let output = swarm().args(["status"]).env("SWARM_ENDPOINT", "127.0.0.1:9").output();
    assert!(stderr(&output.expect("runs")).contains("127.0.0.1:9"));
}

#[test]
fn a_bad_key_is_named_with_its_place_and_the_nearest_one_and_exits_78() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("swarm.toml");
    std::fs::write(&file, "[node]\nname = \"n1\"\n[edge]\nmpc = \"127.0.0.1:0\"\n").expect("written");
    let path = file.to_str().expect("utf-8");
    for command in [&["up", "--config", path][..], &["config", "validate", "--config", path]] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        let wanted = format!("{path}:4:1: unknown key `mpc` in [edge]; did you mean `mcp`?");
        assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
    }
}

#[test]
fn a_bad_value_of_the_environment_names_the_variable() {
    let output = swarm().args(["config", "print"]).env("SWARM__NODE__EXPECT", "three").output();
    let output = output.expect("runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("SWARM__NODE__EXPECT"), "{}", stderr(&output));
}

#[test]
fn the_effective_configuration_is_printed_and_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("swarm.toml");
    let printed = run(&["config", "print"]);
    assert!(printed.status.success(), "{}", stderr(&printed));
    std::fs::write(&file, &printed.stdout).expect("written");
    let path = file.to_str().expect("utf-8");
    let valid = run(&["config", "validate", "--config", path]);
    assert!(valid.status.success(), "{}", stderr(&valid));
    assert!(stdout(&valid).starts_with(&format!("config {path} is valid (sha256:")));
}

#[test]
fn a_file_that_cannot_be_imported_stops_the_start() {
    let output = run(&["up", "--data", ":memory:", "--import", "/no/such/file.json"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("cannot read /no/such/file.json"), "{}", stderr(&output));
}

#[test]
fn controlling_a_demo_that_does_not_run_is_exit_4() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = swarm().args(["demo", "kill", "n1"]).env("TMPDIR", folder.path()).output();
    assert_eq!(output.expect("runs").status.code(), Some(4));
}

#[test]
fn preflight_checks_need_no_node() {
    let output = run(&["check", "--pre"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("preflight\n---------\n√ config"), "{}", stdout(&output));
}
