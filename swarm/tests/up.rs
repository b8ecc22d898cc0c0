//! One node: ready, asked, drained.

mod common;

use common::{Node, eventually, run, stderr, stdout, swarm};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};
use tempfile::TempDir;

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("n1")
}

#[test]
fn a_node_says_where_it_answers_and_drains_on_sigterm() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("n1", &data(&folder), &[]);
    let keys: Vec<&str> =
        node.line.split(' ').skip(1).filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    assert_eq!(keys, ["name", "mcp", "admin", "grpc", "gossip"], "{}", node.line);
    assert_eq!(node.fact("name"), "n1");
    assert!(node.fact("mcp").ends_with("/mcp") && node.fact("mcp").starts_with("http://127.0.0.1:"));
    assert!(!node.line.contains(":0 ") && !node.line.ends_with(":0"), "{}", node.line);

    let file = data(&folder).join("endpoints.json");
    let written = std::fs::read(&file).expect("endpoints.json");
    let written: BTreeMap<String, String> = serde_json::from_slice(&written).expect("an object");
    assert_eq!(written, node.ready);

    let health = run(&["healthcheck", "--data", data(&folder).to_str().expect("utf-8")]);
    assert!(health.status.success(), "{}", stderr(&health));
    assert_eq!(stdout(&health), "");

    assert_eq!(node.terminate().code(), Some(0));
    assert!(!file.exists(), "endpoints.json outlives the node");
    let health = run(&["healthcheck", "--data", data(&folder).to_str().expect("utf-8")]);
    assert_eq!(health.status.code(), Some(1));
}

#[test]
fn operators_commands_answer_as_table_and_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("n1", &data(&folder), &[]);
    let status = node.json(&["status"]).expect("json");
    assert_eq!(status["health"], "healthy", "{status}");
    assert_eq!(status["raft"]["leader"], "n1");
    assert_eq!(status["endpoints"]["mcp"], node.fact("mcp"));
    let members = node.json(&["members"]).expect("json");
    assert_eq!(members["members"][0]["state"], "alive");

    let table = swarm().args(["members", "--endpoint", node.admin()]).output().expect("runs");
    let table = stdout(&table);
    assert!(table.starts_with("NODE  STATE"), "{table}");
    assert!(!table.contains('\u{1b}'), "colour without a terminal");

    let check = swarm().args(["check", "--endpoint", node.admin()]).output().expect("runs");
    assert!(check.status.success(), "{}{}", stdout(&check), stderr(&check));
    assert!(stdout(&check).contains("√ raft: leader n1"), "{}", stdout(&check));
    let missing = swarm().args(["registry", "get", "nope", "--endpoint", node.admin()]).output();
    assert_eq!(missing.expect("runs").status.code(), Some(3));
}

#[test]
fn a_node_on_all_interfaces_is_called_on_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mcp.json");
    let example = serde_json::json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    std::fs::write(&file, serde_json::json!({"mcpServers": {"example": example}}).to_string())
        .expect("written");
    let import = ["--import", file.to_str().expect("utf-8")];
    let everywhere = ["--mcp", "0.0.0.0:0", "--admin", "0.0.0.0:0"];
    let node = Node::start("n1", &data(&folder), &[&import[..], &everywhere].concat());
    assert!(node.fact("mcp").starts_with("http://0.0.0.0:"), "{}", node.line);
    let port = node.admin().rsplit_once(':').map(|(_, port)| port).expect("a port");
    let call = |args: &[&str]| {
        let output = swarm().args(["call", "example_echo", "text=hello"]).args(args).output().expect("runs");
        (output.status.success(), stdout(&output) + &stderr(&output))
    };
    // By the address as it is printed, by one of the machine, and past the admin port.
    let (printed, own) = (node.admin().to_owned(), format!("127.0.0.1:{port}"));
    for args in [["--endpoint", &printed], ["--endpoint", &own], ["--url", node.fact("mcp")]] {
        let (success, said) = call(&args);
        assert!(success && said.contains("hello"), "{args:?}: {said}");
    }
    let health = run(&["healthcheck", "--data", data(&folder).to_str().expect("utf-8")]);
    assert!(health.status.success(), "{}", stderr(&health));
}

#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _node = Node::start("n1", &data(&folder), &[]);
    let second = run(&["up", "--data", data(&folder).to_str().expect("utf-8")]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by another process"), "{}", stderr(&second));
}

#[test]
fn a_taken_port_is_named_with_the_option_that_changes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let output = run(&["up", "--data", data(&folder).to_str().expect("utf-8"), "--admin", &addr]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&addr) && stderr(&output).contains("--admin"));
}

#[test]
fn imports_name_bad_entries_and_keep_the_good_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mcp.json");
    let text = r#"{"mcpServers": {
        "good": {"command": "false"}, "bad": {"args": ["x"]}, "tls": {"url": "https://x/mcp"}}}"#;
    std::fs::write(&file, text).expect("written");
    let node = Node::start("n1", &data(&folder), &["--import", file.to_str().expect("utf-8")]);
    let log = std::fs::read_to_string(data(&folder).with_extension("log")).expect("a log");
    assert!(log.contains("backend `bad` is left out: it has neither a command nor a url"), "{log}");
    assert!(log.contains("backend `tls` is left out"), "{log}");
    let names = |listed: &Value| -> Vec<String> {
        let rows = listed["registrations"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect()
    };
    assert_eq!(names(&node.json(&["registry", "list"]).expect("json")), ["good"]);

    let more = folder.path().join("more.json");
    std::fs::write(&more, r#"{"servers": {"late": {"url": "http://127.0.0.1:9/mcp"}, "worse": {}}}"#)
        .expect("written");
    let path = more.to_str().expect("utf-8");
    let imported = swarm().args(["registry", "import", path, "--endpoint", node.admin()]).output();
    let imported = imported.expect("runs");
    assert_eq!(imported.status.code(), Some(1), "an entry was left out");
    assert!(stdout(&imported).contains("+ late"), "{}", stdout(&imported));
    assert!(stderr(&imported).contains("`worse` is left out"), "{}", stderr(&imported));
    assert_eq!(names(&node.json(&["registry", "list"]).expect("json")), ["good", "late"]);
}

#[test]
fn what_is_taken_out_of_the_file_goes_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mcp.json");
    let path = file.to_str().expect("utf-8");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write(r#"{"mcpServers": {"a": {"command": "false"}, "b": {"command": "false"}}}"#);
    let node = Node::start("n1", &data(&folder), &["--import", path]);
    assert!(node.terminate().success());
    write(r#"{"mcpServers": {"b": {"command": "true"}}}"#);
    let node = Node::start("n1", &data(&folder), &["--import", path]);
    let listed = node.json(&["registry", "list"]).expect("json");
    let rows = listed["registrations"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "{listed}");
    assert_eq!(rows[0]["target"], "true");
}

#[test]
fn a_node_that_keeps_nothing_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = swarm();
    command.args(["up", "--name", "n1", "--data", ":memory:"]).current_dir(folder.path());
    command.env("HOME", folder.path()).env("XDG_STATE_HOME", folder.path());
    for port in ["--mcp", "--admin", "--grpc", "--gossip"] {
        command.args([port, "127.0.0.1:0"]);
    }
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert!(line.starts_with("ready name=n1 "), "{line}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupted");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0);
}

#[test]
fn requests_of_another_origin_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("n1", &data(&folder), &[]);
    let addr = node.admin().trim_start_matches("http://").to_owned();
    let ask = |origin: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&addr).expect("connects");
        let head = format!(
            "POST /api/v1/check HTTP/1.1\r\nhost: {addr}\r\norigin: {origin}\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    assert!(ask("http://evil.example").starts_with("HTTP/1.1 403"));
    eventually("the own origin is served", || {
        ask(&format!("http://{addr}")).starts_with("HTTP/1.1 200").then_some(())
    });
}
