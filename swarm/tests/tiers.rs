//! Which tier answers for a request of a real node, and the flag that decides it.

mod common;

use common::{Node, eventually, stderr, stdout, swarm};
use serde_json::json;

const CALLS: usize = 8;

/// Lookups that a tier answered so far.
fn hits(node: &Node, tier: &str) -> u64 {
    let line = format!("swarm_registry_lookups_total{{tier=\"{tier}\",result=\"hit\"}} ");
    let metrics = node.page("/metrics");
    let found = metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {metrics}"))
}

/// Calls a tool some times; how many lookups L1 and L2, and L3, answered meanwhile.
fn called(node: &Node) -> (u64, u64) {
    let count = || (hits(node, "l1") + hits(node, "l2"), hits(node, "l3"));
    let before = count();
    for _ in 0..CALLS {
        let called =
            swarm().args(["call", "example_echo", "text=hello", "--endpoint", node.admin()]).output();
        let called = called.expect("runs");
        assert_eq!(stdout(&called), "hello\n", "{}", stderr(&called));
    }
    let after = count();
    (after.0 - before.0, after.1 - before.1)
}

fn set(node: &Node, variant: &str) {
    let done = node.json(&["flags", "set", "registry.cache", variant, "--reason", "a test"]).expect("done");
    assert_eq!(done["failed"], json!({}), "{done}");
}

#[test]
fn requests_are_resolved_from_the_copy_and_with_the_flag_off_from_the_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mcp.json");
    let server = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    std::fs::write(&file, json!({"mcpServers": {"example": server}}).to_string()).expect("written");
    let node = Node::start("n1", &folder.path().join("n1"), &["--import", file.to_str().expect("utf-8")]);
    eventually("the backend serves", || {
        let output = swarm().args(["call", "example_echo", "text=x", "--endpoint", node.admin()]).output();
        output.expect("runs").status.success().then_some(())
    });
    let calls = CALLS as u64;
    let (copy, shard) = called(&node);
    assert!(copy > shard, "{copy} from the copy, {shard} from the shard");
    set(&node, "off");
    let (copy, shard) = called(&node);
    assert!(copy == 0 && shard >= calls, "{copy} from the copy, {shard} from the shard");
    set(&node, "on");
    let (copy, shard) = called(&node);
    assert!(copy > shard, "{copy} from the copy, {shard} from the shard");
    assert!(hits(&node, "l1") > 0, "a handle was used again");
}
