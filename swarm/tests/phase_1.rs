//! Phase 1 as processes: registry-svc and one edge in its simple mode, a static list instead of
//! gossip, sessions in the edge, one flags file for both.

mod common;

use common::{Node, eventually, stderr, stdout, swarm};
use serde_json::{Value, json};
use std::{path::Path, time::Instant};

fn config(folder: &Path, name: &str, members: &[String]) -> String {
    let text = format!(
        "[node]\nflags = {:?}\nmembers = {}\n[edge]\nsessions = \"local\"\n",
        folder.join("shared/flags.json"),
        json!(members),
    );
    let file = folder.join(name);
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("utf-8").to_owned()
}

fn compared(registry: &Node, result: &str) -> u64 {
    let metrics = registry.page("/metrics");
    let line = format!("swarm_shadow_compared_total{{flag=\"registry.sharding\",result=\"{result}\"}} ");
    metrics.lines().find_map(|found| found.strip_prefix(&line)).expect("a count").parse().expect("a number")
}

fn call(edge: &Node) -> (Option<i32>, String) {
    let called = swarm()
        .args(["call", "example_echo", "text=hello", "--endpoint", edge.admin()])
        .output()
        .expect("runs");
    (called.status.code(), format!("{}{}", stdout(&called), stderr(&called)))
}

fn variant(node: &Node, key: &str) -> String {
    let flag = node.json(&["flags", "get", key, "--single-address"]).expect("json");
    flag["variant"].as_str().expect("a variant").to_owned()
}

/// Set at one process, in force in the other within a second.
// The clock of the processes under test.
#[allow(clippy::disallowed_methods)]
fn set(edge: &Node, registry: &Node, args: &[&str], wanted: &str) {
    let done = edge.json(&[&["flags"][..], args, &["--reason", "a test"]].concat()).expect("done");
    assert_eq!(done["failed"], json!({}), "{done}");
    let since = Instant::now();
    eventually("the other process follows", || (variant(registry, args[1]) == wanted).then_some(()));
    // A second, and what starting commands takes on a busy machine.
    assert!(since.elapsed().as_secs() < 3, "{:?} for {args:?}", since.elapsed());
    assert_eq!(variant(edge, args[1]), wanted);
}

fn names(edge: &Node) -> Vec<String> {
    let listed: Value = edge.json(&["registry", "list"]).expect("json");
    let all = listed["registrations"].as_array().expect("registrations").iter();
    all.map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_registry_and_a_simple_edge_switch_live_and_lose_nothing_to_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("registry");
    let settings = config(folder.path(), "registry.toml", &[]);
    let registry = Node::spawn_as("registry", "n1", &data, &["--config", &settings]).ready();
    let grpc = registry.fact("grpc").to_owned();

    let file = folder.path().join("mcp.json");
    let server = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    std::fs::write(&file, json!({"mcpServers": {"example": server}}).to_string()).expect("written");
    let members = [format!("registry/n1@{grpc}")];
    let settings_edge = config(folder.path(), "edge.toml", &members);
    let import = ["--config", &settings_edge, "--import", file.to_str().expect("utf-8")];
    let edge = Node::spawn_as("edge", "e1", &folder.path().join("edge"), &import).ready();
    let hello = (Some(0), "hello\n".to_owned());
    assert_eq!(eventually("the backend serves", || Some(call(&edge)).filter(|done| *done == hello)), hello);

    for to in ["shadow", "on", "off", "shadow"] {
        set(&edge, &registry, &["set", "registry.sharding", to], to);
        assert_eq!((names(&edge), call(&edge)), (vec!["example".to_owned()], hello.clone()), "{to}");
    }
    eventually("answers are compared", || {
        names(&edge);
        (compared(&registry, "match") > 0).then_some(())
    });
    assert_eq!(compared(&registry, "mismatch"), 0);

    set(&edge, &registry, &["kill", "kill.tool-calls"], "on");
    let (code, words) = call(&edge);
    assert!(code != Some(0) && words.contains("switched off by an operator"), "{words}");
    set(&edge, &registry, &["kill", "kill.tool-calls", "--lift"], "off");
    assert_eq!(call(&edge), hello);

    registry.kill();
    assert_eq!(call(&edge), hello, "the edge serves what it knows");
    let again = ["--config", settings.as_str(), "--grpc", grpc.as_str()];
    let registry = Node::spawn_as("registry", "n1", &data, &again).ready();
    assert_eq!(variant(&registry, "registry.sharding"), "shadow");
    eventually("every durable name is there again", || (names(&edge) == ["example"]).then_some(()));
    assert_eq!(call(&edge), hello);
    let history = edge.json(&["flags", "history", "registry.sharding"]).expect("json");
    assert_eq!(history["records"].as_array().map(Vec::len), Some(4), "{history}");
}

#[test]
fn members_that_do_not_parse_or_stand_beside_gossip_end_the_start_with_78() {
    for (members, gossip, words) in [
        ("[\"registry\"]", "[]", "is not service/name@host:port"),
        ("[\"registry/n1@a:1\"]", "[\"b:1\"]", "set one of the two"),
    ] {
        let mut command = swarm();
        command.args(["edge", "--data", ":memory:"]);
        command.env("SWARM__NODE__MEMBERS", members).env("SWARM__NODE__GOSSIP_ENDPOINTS", gossip);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
