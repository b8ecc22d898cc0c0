//! Flags of real nodes, by real commands.

mod common;

use common::{Node, eventually, run, stderr, stdout, swarm};
use proto::registry::{Kind, ListRequest};
use serde_json::Value;
use std::time::Duration;

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
fn a_backend_that_is_switched_off_says_so_wherever_it_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mcp.json");
    let example = serde_json::json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    std::fs::write(&file, serde_json::json!({"mcpServers": {"example": example}}).to_string())
        .expect("written");
    let import = ["--import", file.to_str().expect("utf-8")];
    let node = Node::start("n1", &folder.path().join("n1"), &import);
    let tools = node.json(&["tools", "list"]).expect("json");
    let shown = |path: &[&str], list: &str| {
        let answer = node.json(path).expect("json");
        let of = |key: &str| answer[list][0][key].as_str().unwrap_or_default().to_owned();
        (of("state"), of("reason"))
    };
    let everywhere = |wanted: (&str, &str)| {
        let wanted = (wanted.0.to_owned(), wanted.1.to_owned());
        assert_eq!(shown(&["registry", "list"], "registrations"), wanted);
        assert_eq!(shown(&["status"], "backends"), wanted);
        assert_eq!(node.json(&["registry", "get", "example"]).expect("json")["state"], wanted.0);
        eventually("the registry is told", || (reported(&node) == wanted).then_some(()));
    };
    everywhere(("ready", ""));
    let switch = ["flags", "kill", "kill.backend.example", "--reason", "x"];
    node.json(&switch).expect("killed");
    everywhere(("stopped", "switched off by an operator (kill.backend.example)"));
    let listed = run(&["tools", "list", "-o", "json", "--endpoint", node.admin()]);
    let words = "warning: the tools of example cannot be called: switched off by an operator";
    assert!(stderr(&listed).starts_with(words), "{}", stderr(&listed));
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("json");
    assert_eq!(listed["tools"], tools["tools"], "its tools stay in the lists");
    assert_eq!(node.json(&["status"]).expect("json")["health"], "healthy", "an operator wanted it");
    node.json(&[&switch[..], &["--lift"]].concat()).expect("lifted");
    everywhere(("ready", ""));
}

/// State and reason of the one backend as registry-svc knows them from the edge.
fn reported(node: &Node) -> (String, String) {
    node.registry(|mut registry| async move {
        let request = ListRequest { kind: Kind::Backend.into(), ..ListRequest::default() };
        let request = kit::rpc::with_deadline(request, Duration::from_secs(10));
        let answer = registry.list(request).await.expect("listed").into_inner();
        let status = answer.registrations.into_iter().next().and_then(|found| found.status);
        status.map(|status| (status.state, status.reason)).unwrap_or_default()
    })
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
