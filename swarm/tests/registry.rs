//! `swarm registry import|apply|export`: plans, round trips, another node's registry, bad sources.

mod common;

use common::{Node, eventually, stderr, stdout, swarm};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
};
use tempfile::TempDir;

fn node(folder: &TempDir, name: &str) -> Node {
    Node::start(name, &folder.path().join(name), &[])
}

/// `swarm registry <args>` against a node.
fn registry(node: &Node, args: &[&str]) -> Output {
    let mut command = swarm();
    command.arg("registry").args(args).args(["--endpoint", node.admin()]);
    command.output().expect("swarm starts")
}

/// `swarm registry <args> -o json`: its exit code and plan.
fn planned(node: &Node, args: &[&str]) -> (Option<i32>, Value) {
    let output = registry(node, &[args, &["-o", "json"]].concat());
    let plan = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    (output.status.code(), plan)
}

/// "add a", "same b", ...
fn steps(plan: &Value) -> Vec<String> {
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    let word = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    steps.iter().map(|step| format!("{} {}", word(step, "action"), word(step, "name"))).collect()
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let file: PathBuf = folder.path().join(name);
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("utf-8").to_owned()
}

fn names(node: &Node) -> Vec<String> {
    let listed = node.json(&["registry", "list"]).expect("json");
    let rows = listed["registrations"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect()
}

const SERVERS: &str = r#"{"mcpServers": {
    "docs": {"url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": "Bearer s3cret-token"}},
    "git": {"command": "false", "args": ["--x", "y z"], "env": {"KEY": "s3cret-key"}, "cwd": "/"}}}"#;

#[test]
fn what_is_exported_and_imported_again_is_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let (code, plan) = planned(&node, &["import", &write(&folder, "mcp.json", SERVERS)]);
    assert_eq!((code, steps(&plan)), (Some(0), vec!["add docs".to_owned(), "add git".to_owned()]));
    for form in ["mcp-json", "vscode", "codex", "gemini", "claude-desktop", "toml"] {
        let masked = stdout(&registry(&node, &["export", "--format", form]));
        assert!(!masked.contains("s3cret"), "{form}: {masked}");
        let exported = registry(&node, &["export", "--format", form, "--show-secrets"]);
        assert!(exported.status.success(), "{}", stderr(&exported));
        assert!(stdout(&exported).contains("s3cret-key"), "{form}");
        let file = write(&folder, &format!("{form}.exported"), &stdout(&exported));
        let (code, plan) = planned(&node, &["import", "--dry-run", &file]);
        assert_eq!((code, plan["dry_run"].as_bool()), (Some(0), Some(true)));
        let mut told = steps(&plan);
        told.sort_unstable();
        assert_eq!(told, ["same docs", "same git"], "{form}: {plan}");
        // Where the variables are set, the file without secrets is the same too.
        let file = write(&folder, &format!("{form}.masked"), &masked);
        let mut import = swarm();
        import.args(["registry", "import", "--dry-run", &file, "-o", "json", "--endpoint", node.admin()]);
        import.env("KEY", "s3cret-key").env("DOCS_AUTHORIZATION", "s3cret-token");
        let output = import.output().expect("swarm starts");
        assert!(output.status.success(), "{form}: {}", stderr(&output));
        assert!(!stdout(&output).contains("change"), "{form}: {}", stdout(&output));
    }
    let one = stdout(&registry(&node, &["export", "git"]));
    assert!(one.contains("git") && !one.contains("docs"), "{one}");
    assert_eq!(registry(&node, &["export", "nope"]).status.code(), Some(3));
}

#[test]
fn a_dry_run_names_every_change_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let file = write(&folder, "mcp.json", SERVERS);
    let first = registry(&node, &["import", "--dry-run", &file]);
    let lines = "+ docs  http://127.0.0.1:9/mcp\n+ git   false --x y z\n\
                 2 new (dry run: nothing was changed)\n";
    assert_eq!(stdout(&first), lines);
    assert!(names(&node).is_empty(), "a dry run registered something");
    assert!(registry(&node, &["import", &file]).status.success());
    let changed = r#"{"mcpServers": {"new": {"command": "true"},
        "docs": {"url": "http://127.0.0.1:10/mcp", "headers": {"Authorization": "Bearer other"}},
        "git": {"command": "false", "args": ["--x", "y z"], "env": {"KEY": "s3cret-key"}, "cwd": "/"},
        "tls": {"url": "https://h/mcp"}, "a b": {"command": "x"}}}"#;
    let second = registry(&node, &["import", "--dry-run", &write(&folder, "changed.json", changed)]);
    assert_eq!(second.status.code(), Some(1), "entries are refused");
    let told = stdout(&second);
    for line in [
        "+ new   true",
        "~ docs  url http://127.0.0.1:9/mcp -> http://127.0.0.1:10/mcp, headers.Authorization *** -> ***",
        "= git",
        "! tls   https backends are not supported yet (http:// only)",
        "! a b   name \"a b\" has ' ' at position 1; only A-Z a-z 0-9 _ - . are allowed",
        "1 new, 1 changed, 1 the same, 2 refused (dry run: nothing was changed)",
    ] {
        assert!(told.lines().any(|told| told == line), "no {line:?} in\n{told}");
    }
    assert!(stderr(&second).contains("backend `tls` is left out"), "{}", stderr(&second));
    let shown = registry(
        &node,
        &["import", "--dry-run", "--show-secrets", &folder.path().join("changed.json").display().to_string()],
    );
    assert!(stdout(&shown).contains("headers.Authorization Bearer s3cret-token -> Bearer other"));
    assert_eq!(names(&node), ["docs", "git"]);
}

#[test]
fn apply_makes_what_its_owner_applied_equal_to_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let imported = write(&folder, "imported.json", r#"{"mcpServers": {"imported": {"command": "false"}}}"#);
    assert!(registry(&node, &["import", &imported]).status.success());
    let both = "[servers.a]\ncommand = \"false\"\ncall_timeout = \"5s\"\n[servers.b]\ncommand = \"false\"\n";
    let file = write(&folder, "servers.toml", both);
    let (code, plan) = planned(&node, &["apply", "-f", &file]);
    assert_eq!((code, steps(&plan)), (Some(0), vec!["add a".to_owned(), "add b".to_owned()]));
    let other =
        write(&folder, "other.toml", "[servers.c]\ncommand = \"false\"\n[servers.a]\ncommand = \"true\"\n");
    let (code, plan) = planned(&node, &["apply", "--owner", "team-2", "-f", &other]);
    assert_eq!((code, steps(&plan)), (Some(1), vec!["refused a".to_owned(), "add c".to_owned()]));
    let reason = "operator has registered another server under this name";
    assert_eq!(plan["steps"][0]["reason"], reason);

    let file =
        write(&folder, "servers.toml", "[servers.b]\ncommand = \"true\"\n[servers.x]\ncomand = \"y\"\n");
    let (_, plan) = planned(&node, &["apply", "-f", &file]);
    assert_eq!(steps(&plan), ["change b", "refused x"]);
    let (_, plan) = planned(&node, &["apply", "--prune", "--dry-run", "-f", &file]);
    assert_eq!(steps(&plan), ["same b", "remove a", "refused x"]);
    assert_eq!(names(&node), ["a", "b", "c", "imported"]);
    let (code, _) = planned(&node, &["apply", "--prune", "-f", &file]);
    assert_eq!(code, Some(1), "one entry is refused all the same");
    assert_eq!(names(&node), ["b", "c", "imported"]);
    let (_, plan) = planned(&node, &["apply", "--prune", "-f", &file]);
    assert_eq!(steps(&plan), ["same b", "refused x"]);
}

#[test]
fn a_node_imports_the_registry_of_another_and_calls_through_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (node(&folder, "a"), node(&folder, "b"));
    let example = json!({"command": env!("CARGO_BIN_EXE_swarm"), "args": ["example-server"]});
    let file = json!({"mcpServers": {"example": example, "dead": {"command": "false"}}}).to_string();
    assert!(registry(&a, &["import", &write(&folder, "mcp.json", &file)]).status.success());

    let (code, plan) = planned(&b, &["import", a.admin(), "--prefix", "a-", "--dry-run"]);
    assert_eq!((code, steps(&plan)), (Some(0), vec!["add a-dead".to_owned(), "add a-example".to_owned()]));
    assert_eq!(plan["steps"][1]["target"], format!("{}/example", a.fact("mcp")).as_str());
    let list = format!("{}/v0.1/servers?search=example&limit=1", a.admin());
    let (code, plan) = planned(&b, &["import", &list]);
    assert_eq!((code, steps(&plan)), (Some(0), vec!["add example".to_owned()]));

    let said = eventually("the tool answers through both edges", || {
        let mut call = swarm();
        call.args(["call", "example_echo", "text=hello from b", "--endpoint", b.admin()]);
        let output = call.output().expect("swarm starts");
        output.status.success().then(|| stdout(&output))
    });
    assert!(said.contains("hello from b"), "{said}");
    let (_, again) = planned(&b, &["import", &list, "--dry-run"]);
    assert_eq!(steps(&again), ["same example"]);
}

#[test]
fn every_page_of_a_registry_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (node(&folder, "a"), node(&folder, "b"));
    let servers = (0..120).map(|n| (format!("s{n:03}"), json!({"url": format!("http://127.0.0.1:9/{n}")})));
    let servers: serde_json::Map<String, Value> = servers.collect();
    let file = write(&folder, "many.json", &json!({ "mcpServers": servers }).to_string());
    assert!(registry(&a, &["import", &file]).status.success());
    let (code, plan) = planned(&b, &["import", a.admin(), "--dry-run"]);
    assert_eq!((code, steps(&plan).len()), (Some(0), 120));
}

/// A server that answers every request with what `answer` makes of its path.
fn serve(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let path = asked(&stream);
            // Whoever asked may be gone: that is its choice.
            let _ = stream.write_all(&answer(count, &path));
        }
    });
    addr
}

/// The path of a request, whose head is read to its end.
fn asked(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    first.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

/// How an import from `source` ends, and what is said.
fn import(node: &Node, source: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = registry(node, &[&["import", source], more].concat());
    assert_eq!(stdout(&output), "", "{source}");
    (output.status.code(), stderr(&output))
}

#[test]
fn a_registry_that_misbehaves_is_named_with_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let refused = |answer: Vec<u8>, words: &str, code: i32| {
        let url = format!("http://{}/v0.1/servers", serve(move |_, _| answer.clone()));
        let (exit, said) = import(&node, &url, &[]);
        assert!(said.contains(words), "no {words:?} in {said}");
        assert_eq!(exit, Some(code), "{said}");
    };
    refused(http("200 OK", "<html>hello</html>"), "did not answer as an MCP registry does", 1);
    refused(http("200 OK", "{\"servers\": {}}"), "there is no list `servers`", 1);
    refused(http("404 Not Found", "{\"error\": \"no such thing\"}"), "404 Not Found: no such thing", 3);
    refused(http("500 Internal Server Error", ""), "500 Internal Server Error", 1);
    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/x\r\ncontent-length: 0\r\n\r\n".to_vec();
    refused(moved, "302 Found: it is at http://elsewhere/x", 1);
    let cursor = "{\"servers\": [], \"metadata\": {\"nextCursor\": \"again\"}}";
    refused(http("200 OK", cursor), "goes in circles: it gave the cursor \"again\" twice", 1);
    refused(http("200 OK", &" ".repeat(17 << 20)), "is larger than 16777216 bytes", 1);
    refused(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec(), "broke", 4);

    let endless = serve(|count, _| {
        http("200 OK", &format!("{{\"servers\": [], \"metadata\": {{\"nextCursor\": \"c{count}\"}}}}"))
    });
    let (exit, said) = import(&node, &format!("http://{endless}"), &[]);
    assert!(said.contains("has more than 100 pages"), "{said}");
    assert_eq!(exit, Some(1));
    let entries = vec!["{}"; 600].join(",");
    let page =
        move |count| format!("{{\"servers\": [{entries}], \"metadata\": {{\"nextCursor\": \"c{count}\"}}}}");
    let crowded = serve(move |count, _| http("200 OK", &page(count)));
    let (exit, said) = import(&node, &format!("http://{crowded}/"), &[]);
    assert!(said.contains("lists more than 1000 servers") && said.contains("?search="), "{said}");
    assert_eq!(exit, Some(1));
}

#[test]
fn a_registry_that_is_slow_or_away_has_its_own_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v0.1/servers", silent.local_addr().expect("an address"));
    let (exit, said) = import(&node, &url, &["--timeout", "300ms"]);
    assert_eq!(exit, Some(124), "{said}");
    drop(silent);
    let (exit, said) = import(&node, &url, &[]);
    assert_eq!(exit, Some(4), "{said}");
    assert!(!said.contains("is a node running?"), "{said}");
    let (exit, said) = import(&node, "https://registry.example/v0.1/servers", &[]);
    assert_eq!(exit, Some(2), "{said}");
    assert!(
        said.contains("curl -fsS 'https://registry.example/v0.1/servers' | swarm registry import -"),
        "{said}"
    );
}

#[test]
fn bad_files_and_a_node_that_is_down_have_their_own_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let garbage = write(&folder, "garbage", "hello");
    let (exit, said) = import(&node, &garbage, &[]);
    assert!(said.contains("neither JSON, which begins with a brace, nor TOML"), "{said}");
    assert_eq!(exit, Some(1));
    let missing = folder.path().join("missing.json");
    assert_eq!(import(&node, &missing.display().to_string(), &[]).0, Some(3));
    let good = write(&folder, "mcp.json", SERVERS);
    let (exit, said) = import(&node, &good, &["--format", "codex"]);
    assert!(said.contains("is not in the form `codex`: `mcp_servers` is missing"), "{said}");
    assert_eq!(exit, Some(1));
    assert_eq!(import(&node, &good, &["--format", "yaml"]).0, Some(2));
    node.kill();
    let down = |args: &[&str]| {
        let output = swarm().arg("registry").args(args).args(["--endpoint", "127.0.0.1:9"]).output();
        let output = output.expect("swarm starts");
        assert_eq!(output.status.code(), Some(4), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("is a node running?"), "{}", stderr(&output));
    };
    down(&["import", "--dry-run", &good]);
    down(&["apply", "-f", &good]);
    down(&["export"]);
}

#[test]
fn a_saved_answer_of_a_registry_is_read_from_stdin() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, "n1");
    let package = json!({"registryType": "npm", "identifier": "@me/w", "version": "1.0.0",
        "transport": {"type": "stdio"}});
    let tls = json!([{"type": "streamable-http", "url": "https://h/mcp"}]);
    let page = json!({"servers": [
        {"server": {"name": "a.b/w", "description": "x", "version": "1", "packages": [package]}},
        {"server": {"name": "a.b/t", "description": "x", "version": "1", "remotes": tls}}], "metadata": {"count": 2}});
    let file = write(&folder, "page.json", &page.to_string());
    let mut command = swarm();
    command.args(["registry", "import", "-", "--dry-run", "--endpoint", node.admin()]);
    command.stdin(std::fs::File::open(Path::new(&file)).expect("a file"));
    let output = command.output().expect("swarm starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let lines = "+ w  npx -y @me/w@1.0.0\n! t  https backends are not supported yet (http:// only)\n\
                 1 new, 1 refused (dry run: nothing was changed)\n";
    assert_eq!(stdout(&output), lines);
}
