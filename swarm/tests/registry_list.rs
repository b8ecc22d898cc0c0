//! `swarm registry list` with filters, as an operator and as a program sees it.

mod common;

use common::{Node, backend, eventually, named, stderr, stdout, swarm};
use proto::registry::Kind;
use serde_json::{Value, json};
use std::process::Output;
use tempfile::TempDir;

fn node(folder: &TempDir) -> Node {
    Node::start("n1", &folder.path().join("n1"), &[])
}

fn list(node: &Node, args: &[&str]) -> Output {
    let mut command = swarm();
    command.args(["registry", "list", "--endpoint", node.admin()]).args(args);
    command.output().expect("swarm starts")
}

fn listed(node: &Node, args: &[&str]) -> Value {
    let output = list(node, &[args, &["-o", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("json")
}

fn names(node: &Node, args: &[&str]) -> Vec<String> {
    let rows = listed(node, args)["registrations"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect()
}

/// Two backends over http, an agent, a worker, and the example server as a process.
fn filled(folder: &TempDir) -> Node {
    let node = node(folder);
    let example = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    let file = folder.path().join("mcp.json");
    std::fs::write(&file, json!({"mcpServers": {"example": example}}).to_string()).expect("written");
    let mut import = swarm();
    import.args(["registry", "import", "--endpoint", node.admin()]).arg(&file);
    assert!(import.status().expect("swarm starts").success());
    node.register(vec![
        backend("docs", "z1", &[("team", "a"), ("tier", "gold")]),
        backend("docs-old", "z2", &[("team", "a"), ("tier", "")]),
        named("pilot", Kind::Agent, &[("team", "b")]),
        named("digger", Kind::Worker, &[("team", "a")]),
    ]);
    node
}

#[test]
fn each_filter_keeps_out_what_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = filled(&folder);
    assert_eq!(names(&node, &[]), ["docs", "docs-old", "example"]);
    assert_eq!(names(&node, &["--kind", "any"]), ["digger", "docs", "docs-old", "example", "pilot"]);
    assert_eq!(names(&node, &["--kind", "agent"]), ["pilot"]);
    assert!(names(&node, &["--kind", "counter"]).is_empty());
    assert_eq!(names(&node, &["--prefix", "docs-"]), ["docs-old"]);
    assert_eq!(names(&node, &["--label", "team=a"]), ["docs", "docs-old"]);
    assert_eq!(names(&node, &["--label", "team=a", "--label", "tier="]), ["docs-old"]);
    assert_eq!(names(&node, &["--label", "team=a", "--kind", "worker"]), ["digger"]);
    assert!(names(&node, &["--label", "team=z"]).is_empty());
    assert_eq!(names(&node, &["--transport", "stdio"]), ["example"]);
    assert_eq!(names(&node, &["--transport", "http", "--zone", "z2"]), ["docs-old"]);
    assert!(names(&node, &["--tool", "no-such-tool"]).is_empty());
    eventually("the edge tells which tools the example has", || {
        (names(&node, &["--tool", "echo"]) == ["example"]).then_some(())
    });
    let docs = &listed(&node, &["--zone", "z1"])["registrations"][0];
    assert_eq!((&docs["kind"], &docs["zone"]), (&json!("backend"), &json!("z1")));
    assert_eq!(docs["labels"], json!({"team": "a", "tier": "gold"}));
}

#[test]
fn people_see_what_each_kind_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = filled(&folder);
    let docs = stdout(&list(&node, &["--label", "tier=gold"]));
    assert!(docs.starts_with("BACKEND  STATE") && docs.lines().count() == 2, "{docs}");
    let agents = "NAME   KIND   OWNER  STATE  LABELS\npilot  agent  team          team=b\n";
    assert_eq!(stdout(&list(&node, &["--kind", "agent"])), agents);
    let wide = stdout(&list(&node, &["--kind", "worker", "-o", "wide"]));
    assert!(wide.contains("worker") && wide.contains("team=a"), "{wide}");
}

#[test]
fn a_limit_is_gone_on_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder);
    node.register((0..7).map(|n| backend(&format!("s{n}"), "", &[])).collect());
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let mut args = vec!["--limit", "3"];
        args.extend(token.iter().flat_map(|token: &String| ["--page-token", token.as_str()]));
        let page = listed(&node, &args);
        let rows = page["registrations"].as_array().cloned().unwrap_or_default();
        assert!(rows.len() <= 3, "{page}");
        seen.extend(rows.iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())));
        token = page["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    let first = list(&node, &["--limit", "2"]);
    assert_eq!(stdout(&first).lines().count(), 3);
    assert!(stderr(&first).starts_with("more follow: the same with --page-token "), "{}", stderr(&first));
    assert_eq!(stderr(&list(&node, &[])), "", "nothing follows a whole list");
}

#[test]
fn what_makes_no_sense_is_told_by_whoever_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = filled(&folder);
    let kinds = "kind is \"server\"; backend, agent, worker, property, counter or any are meant";
    let refused = [
        (&["--kind", "server"][..], kinds),
        (&["--label", "team"], "label is \"team\"; KEY=VALUE is meant"),
        (&["--label", "team=a", "--label", "team=b"], "label \"team\" cannot be both \"a\" and \"b\""),
        (&["--label", "taem=a"], "no registration has a label \"taem\"; known are source, team, tier"),
        (&["--transport", "tcp"], "transport is \"tcp\"; stdio, http or empty for any are allowed"),
        (&["--prefix", "a b"], "has ' ' at position 1"),
        (&["--limit", "1001"], "limit is \"1001\"; 1 to 1000 is meant"),
        (&["--page-token", "x"], "page token is not one that was given out"),
    ];
    for (args, words) in refused {
        let output = list(&node, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let error = list(&node, &["--label", "taem=a", "-o", "json"]);
    let error: Value = serde_json::from_slice(&error.stderr).expect("json");
    assert_eq!(error["error"]["code"], "usage");
    for (query, words) in
        [("kind=server", kinds), ("zone=a&zone=b", "zone is given twice"), ("x=y", "known are kind, ")]
    {
        let page = node.page(&format!("/api/v1/registry?{query}"));
        assert!(page.starts_with("HTTP/1.1 400"), "{page}");
        let body = page.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let body: Value = serde_json::from_str(body).expect("json");
        assert!(body["error"]["message"].as_str().is_some_and(|said| said.contains(words)), "{body}");
    }
}
