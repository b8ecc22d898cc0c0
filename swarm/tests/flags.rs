//! Flags of real nodes, by real commands.

mod common;

use common::{Node, eventually, run, stderr, stdout, swarm};
use serde_json::Value;

#[test]
fn flags_are_listed_with_their_stage_and_a_bad_file_is_told_and_survived() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("n1");
    let node = Node::start("n1", &data, &[]);
    let list = node.json(&["flags", "list"]).expect("json");
    let flags = list["flags"].as_array().expect("flags");
    assert!(flags.len() >= 10, "{list}");
    for flag in flags {
        let known = phases::flag(flag["key"].as_str().expect("a key")).expect("known");
        assert_eq!(
            (flag["setting"].as_str(), flag["stage"].as_str()),
            (Some(known.runs()), Some(known.stage()))
        );
    }
    std::fs::write(data.join("flags.json"), "{\"flags\": {").expect("written");
    let listed = eventually("the bad file is told", || {
        let output = run(&["flags", "list", "--endpoint", node.admin()]);
        stderr(&output).contains("warning: n1: flags.json: file: EOF").then(|| stdout(&output))
    });
    assert!(listed.contains("registry.sharding"));
    assert!(node.terminate().success());
    let node = Node::start("n1", &data, &[]);
    let list = node.json(&["flags", "list"]).expect("a bad file does not keep a node from starting");
    assert!(list["problem"].as_str().is_some_and(|problem| problem.contains("stays in force")), "{list}");
}

#[test]
fn refusals_of_commands_have_their_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("n1", &folder.path().join("n1"), &[]);
    let asked = |args: &[&str]| {
        let output =
            swarm().arg("flags").args(args).args(["--endpoint", node.admin()]).output().expect("runs");
        (output.status.code(), stderr(&output))
    };
    assert_eq!(asked(&["set", "session.tiering", "on"]).0, Some(2), "a reason is required");
    let (code, words) = asked(&["set", "session.tierin", "on", "--reason", "x"]);
    assert!(code == Some(3) && words.contains("did you mean session.tiering?"), "{words}");
    // A flag that this build does not obey is refused, so that nobody relies on it.
    let absent = phases::FLAGS.iter().find(|flag| flag.stage() == "absent" && !flag.key.contains('*'));
    if let Some(flag) = absent {
        let (code, words) = asked(&["kill", flag.key, "--reason", "x"]);
        assert!(code == Some(1) && words.contains("absent in this build"), "{words}");
    }
    assert_eq!(asked(&["get", "registry.sharding"]).0, Some(0));
    assert_eq!(asked(&["history"]).0, Some(0));
}

#[test]
fn a_live_flag_is_set_killed_and_lifted_by_command() {
    // Which flags are live differs from build to build.
    let Some(flag) = phases::FLAGS.iter().find(|flag| flag.stage() == "live" && flag.requires.is_empty())
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("n1", &folder.path().join("n1"), &[]);
    let other = *flag.variants.iter().find(|variant| **variant != flag.runs()).expect("another");
    for variant in [other, flag.runs()] {
        let set = ["flags", "set", flag.key, variant, "--reason", "x", "--cascade"];
        assert!(node.json(&set).is_some_and(|done| done["failed"] == serde_json::json!({})));
        assert_eq!(
            node.json(&["flags", "get", flag.key]).map(|flag| flag["variant"].clone()),
            Some(variant.into())
        );
    }
    node.json(&["flags", "kill", flag.key, "--reason", "x"]).expect("killed");
    let killed: Value = node.json(&["flags", "get", flag.key]).expect("json");
    assert_eq!((killed["variant"].as_str(), killed["source"].as_str()), (Some(flag.safe()), Some("kill")));
    node.json(&["flags", "kill", flag.key, "--lift", "--reason", "x"]).expect("lifted");
    let stale = ["flags", "set", flag.key, other, "--reason", "x", "--expected-revision", "0"];
    let refused = run(&[&stale[..], &["--endpoint", node.admin()]].concat());
    assert_eq!(refused.status.code(), Some(1), "somebody was faster");
    assert!(stderr(&refused).contains("not 0: look again"), "{}", stderr(&refused));
    let history = node.json(&["flags", "history", flag.key]).expect("json");
    assert_eq!(history["records"].as_array().map(Vec::len), Some(4), "{history}");
}

#[test]
fn a_start_with_bad_gates_exits_78_and_names_the_flag() {
    for (gates, words) in [
        ("registry.shardin=on", "did you mean registry.sharding?"),
        ("registry.sharding", "is not flag=variant"),
        ("registry.sharding=maybe", "it can be off|shadow|on"),
        ("session.tiering=on", "session.tiering"),
    ] {
        let mut command = swarm();
        command.args(["up", "--data", ":memory:"]).env("SWARM_FEATURE_GATES", gates);
        for port in ["--mcp", "--admin", "--grpc", "--gossip"] {
            command.args([port, "127.0.0.1:0"]);
        }
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
