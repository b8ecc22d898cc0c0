//! The same five services, each a process of its own.

mod common;

use common::{Node, eventually, stderr, stdout, swarm};
use serde_json::json;

#[test]
fn five_processes_are_one_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |service: &str, args: &[&str]| {
        Node::spawn_as(service, "n1", &folder.path().join(service), args).ready()
    };
    let gossip = start("gossip", &[]);
    let facts: Vec<&str> = gossip.line.split(' ').filter_map(|fact| Some(fact.split_once('=')?.0)).collect();
    assert_eq!(facts, ["name", "admin", "grpc", "gossip"], "{}", gossip.line);
    let known = ["--gossip-endpoint", gossip.fact("grpc")];
    let _registry = start("registry", &known);
    let _session = start("session", &known);
    let _coordinator = start("coordinator", &known);
    let file = folder.path().join("mcp.json");
    let server = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    std::fs::write(&file, json!({"mcpServers": {"example": server}}).to_string()).expect("written");
    let import = ["--import", file.to_str().expect("utf-8")];
    let edge = start("edge", &[&known[..], &import].concat());

    let call = ["call", "example_echo", "text=hello", "--endpoint", edge.admin()];
    let called = swarm().args(call).output().expect("runs");
    assert_eq!(stdout(&called), "hello\n", "{}", stderr(&called));
    let members = eventually("every service is published", || {
        let members = edge.json(&["members"])?;
        let services = members["members"][0]["services"].as_object()?.len();
        (services == 5).then_some(members)
    });
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    let status = edge.json(&["status"]).expect("json");
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(edge.terminate().code(), Some(0));
}
