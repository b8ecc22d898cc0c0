use super::*;

mod forms;
mod registry;

fn import(text: &str) -> Import {
    try_import(text).expect("the file parses")
}

fn try_import(text: &str) -> Result<Import, ImportError> {
    import_as(text, ".mcp.json", None)
}

fn import_as(text: &str, path: &str, form: Option<Form>) -> Result<Import, ImportError> {
    let environment = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    let origin = Origin { directory: "/project/.vscode".into(), environment: &environment };
    parse(text, Path::new(path), form, &origin)
}

fn names(import: &Import) -> Vec<&str> {
    import.entries.iter().map(|entry| entry.name.as_str()).collect()
}

/// Reason by name.
fn rejected(import: &Import) -> Vec<(&str, &str)> {
    import.rejected.iter().map(|bad| (bad.name.as_str(), bad.reason.as_str())).collect()
}

fn stdio(entry: &Entry) -> &StdioTransport {
    match &entry.spec.transport {
        Some(Transport::Stdio(stdio)) => stdio,
        other => panic!("not stdio: {other:?}"),
    }
}

fn http(entry: &Entry) -> &HttpTransport {
    match &entry.spec.transport {
        Some(Transport::Http(http)) => http,
        other => panic!("not http: {other:?}"),
    }
}

fn reason(text: &str) -> String {
    let import = import(&format!(r#"{{"mcpServers": {{"x": {text}}}}}"#));
    assert_eq!(import.entries, []);
    import.rejected[0].reason.clone()
}

#[test]
fn claude_desktop_entries_become_stdio_backends() {
    let import = import(
        r#"{"mcpServers": {"git": {"command": "uvx", "args": ["mcp-server-git", "--port", 1],
            "env": {"A": "${TOKEN}", "N": 3, "B": true}, "cwd": "repo"}}}"#,
    );
    let git = stdio(&import.entries[0]);
    assert_eq!(git.command, "uvx");
    assert_eq!(git.args, ["mcp-server-git", "--port", "1"]);
    assert_eq!(git.env["A"], "s3cret");
    assert_eq!(git.env["N"], "3");
    assert_eq!(git.env["B"], "true");
    assert_eq!(git.cwd, "/project/.vscode/repo");
}

#[test]
fn url_entries_become_http_backends() {
    let import = import(
        r#"{"mcpServers": {
            "a": {"url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": "Bearer ${env:TOKEN}"}},
            "b": {"type": "streamable-http", "url": "http://host/mcp"},
            "c": {"type": "http", "serverUrl": "http://${HOST_NAME:-localhost}:1/mcp"}}}"#,
    );
    assert_eq!(import.rejected, []);
    assert_eq!(http(&import.entries[0]).headers["Authorization"], "Bearer s3cret");
    assert_eq!(http(&import.entries[1]).url, "http://host/mcp");
    assert_eq!(http(&import.entries[2]).url, "http://localhost:1/mcp");
}

#[test]
fn vs_code_files_may_have_comments_and_trailing_commas() {
    let import = import(
        r#"{
            // the servers of this workspace
            "servers": { /* one */
                "time": {"type": "stdio", "command": "${workspaceFolder}/bin/time", "args": ["a,}", "//b",],},
            },
        }"#,
    );
    let time = stdio(&import.entries[0]);
    assert_eq!(time.command, "/project/bin/time");
    assert_eq!(time.args, ["a,}", "//b"]);
}

#[test]
fn a_bad_entry_is_named_and_does_not_stop_the_others() {
    let import = import(
        r#"{"mcpServers": {"good": {"command": "a"}, "bad": {"args": []}, "also-good": {"command": "b"}}}"#,
    );
    assert_eq!(names(&import), ["good", "also-good"]);
    assert_eq!(import.rejected[0].name, "bad");
    assert_eq!(import.rejected[0].reason, "it has neither a command nor a url");
}

#[test]
fn every_bad_entry_has_its_own_reason() {
    assert_eq!(reason("1"), "the entry is not an object");
    assert_eq!(reason(r#"{"command": "a", "url": "http://b"}"#), "it has both a command and a url");
    assert_eq!(reason(r#"{"command": 1}"#), "`command` is not a string");
    assert_eq!(reason(r#"{"command": " "}"#), "the command is empty");
    assert_eq!(reason(r#"{"command": "a", "args": "b"}"#), "`args` is not a list");
    assert_eq!(reason(r#"{"command": "a", "env": {"A": null}}"#), "`A` holds something that is not a string");
    assert_eq!(reason(r#"{"command": "a", "disabled": true}"#), "it is switched off in the file");
    assert_eq!(reason(r#"{"command": "${NOPE}"}"#), "the environment variable `NOPE` is not set");
    assert_eq!(
        reason(r#"{"command": "a", "env": {"T": "${input:token}"}}"#),
        "it needs the input `token`, which only an editor can ask for"
    );
    assert_eq!(reason(r#"{"url": "https://a/mcp"}"#), "https backends are not supported yet (http:// only)");
    assert_eq!(
        reason(r#"{"url": "http://a/sse", "type": "sse"}"#),
        "the old HTTP+SSE transport is not supported yet"
    );
    assert_eq!(reason(r#"{"command": "a", "type": "http"}"#), "it has a command, but its type is `http`");
}

#[test]
fn names_follow_the_registry_and_are_unique() {
    let import =
        import(r#"{"mcpServers": {"a b": {"command": "x"}, "c": {"command": "x"}, "c": {"command": "y"}}}"#);
    assert_eq!(import.entries.len(), 1);
    assert!(import.rejected[0].reason.starts_with("name \"a b\" has ' ' at position 1"));
    assert_eq!(import.rejected[1].reason, "the name is used twice in the file, for different servers");
}

#[test]
fn a_broken_file_is_named_with_line_and_column() {
    let error = try_import("{\n  \"mcpServers\": {\n    oops\n  }\n}").expect_err("broken");
    assert_eq!(error.to_string(), ".mcp.json:3:5: key must be a string");
    let error = try_import("{}").expect_err("nothing in it");
    assert_eq!(
        error.to_string(),
        ".mcp.json lists no servers: it has none of `mcpServers` (Claude, Cursor, Gemini), `servers` \
         (VS Code, MCP registry, swarm) and `mcp_servers` (Codex)"
    );
}
