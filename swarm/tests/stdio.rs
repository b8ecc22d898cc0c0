//! `swarm stdio` as a host runs it.

mod common;

use common::{Node, swarm};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

/// A host with its bridge; killed when dropped.
struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn start(args: &[&str]) -> Host {
        let mut command = swarm();
        command.arg("stdio").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        Host { child, input, output }
    }

    fn say(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("open");
        writeln!(input, "{message}").expect("written");
    }

    /// The answer to `id`; notifications on the way are passed over.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("read"), 0, "the bridge ended");
            let message: Value = serde_json::from_str(&line).expect("only the protocol");
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    }

    fn initialize(&mut self) {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        self.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
        assert_eq!(self.answer(1)["result"]["protocolVersion"], "2025-11-25");
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn call(&mut self, id: u64, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
        self.answer(id)
    }

    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(folder: &Path) -> PathBuf {
    let file = folder.join("mcp.json");
    let server = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    let text = json!({"mcpServers": {"example": server}}).to_string();
    std::fs::write(&file, text).expect("written");
    file
}

#[test]
fn a_bridge_with_its_own_node_serves_a_legacy_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = example(folder.path());
    let mut host = Host::start(&["--import", file.to_str().expect("utf-8")]);
    host.initialize();
    let answer = host.call(2, "example_echo", json!({"text": "hello"}));
    assert_eq!(answer["result"]["content"][0]["text"], "hello", "{answer}");
    // Long enough to become a stream.
    let answer = host.call(3, "example_sleep", json!({"ms": 900}));
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(host.end(), Some(0));
}

#[test]
fn a_bridge_to_a_running_node_serves_both_eras() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = example(folder.path());
    let data = folder.path().join("n1");
    let node = Node::start("n1", &data, &["--import", file.to_str().expect("utf-8")]);
    let mut legacy = Host::start(&["--endpoint", node.admin()]);
    legacy.initialize();
    let mut modern = Host::start(&["--url", node.fact("mcp")]);
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": "example_echo", "arguments": {"text": "modern"}, "_meta": meta});
    modern.say(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}));
    let answer = modern.answer(7);
    assert_eq!(answer["result"]["content"][0]["text"], "modern", "{answer}");
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    let answer = legacy.call(2, "example_echo", json!({"text": "legacy"}));
    assert_eq!(answer["result"]["content"][0]["text"], "legacy", "{answer}");
    let open = |node: &Node| node.json(&["sessions", "list"]).map(|s| s["sessions"].as_array().map(Vec::len));
    assert_eq!(open(&node), Some(Some(1)));
    assert_eq!((legacy.end(), modern.end()), (Some(0), Some(0)));
    assert_eq!(open(&node), Some(Some(0)), "the bridge ends its session");
}

#[test]
fn a_node_on_all_interfaces_is_bridged_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let import = example(folder.path());
    let args = ["--import", import.to_str().expect("utf-8"), "--mcp", "0.0.0.0:0"];
    let node = Node::start("n1", &folder.path().join("n1"), &args);
    for args in [["--endpoint", node.admin()], ["--url", node.fact("mcp")]] {
        let mut host = Host::start(&args);
        host.initialize();
        let answer = host.call(2, "example_echo", json!({"text": "hello"}));
        assert_eq!(answer["result"]["content"][0]["text"], "hello", "{answer}");
        assert_eq!(host.end(), Some(0));
    }
}

#[test]
fn without_a_node_and_without_servers_the_host_is_told() {
    let mut command = swarm();
    command.args(["stdio", "--endpoint", "127.0.0.1:9"]).stdin(Stdio::null());
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stdout, b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--import"));
}
