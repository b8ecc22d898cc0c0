//! Which form a file is in, and what only that form has.

use super::*;

fn as_form(text: &str, form: Form) -> Import {
    import_as(text, "file", Some(form)).expect("the file parses")
}

#[test]
fn claude_code_keeps_servers_by_project_too() {
    let import = import(
        r#"{"numStartups": 3, "mcpServers": {"a": {"command": "x"}}, "projects": {
            "/p": {"mcpServers": {"a": {"command": "x"}, "b": {"command": "y"}}, "history": []},
            "/q": {"mcpServers": {"b": {"command": "other"}}}, "/r": {}, "/s": 1}}"#,
    );
    assert_eq!(names(&import), ["a", "b"]);
    assert_eq!(rejected(&import), [("b", "the name is used twice in the file, for different servers")]);
    let only_projects = r#"{"projects": {"/p": {"mcpServers": {"a": {"command": "x"}}}}}"#;
    assert_eq!(names(&super::import(only_projects)), ["a"]);
}

#[test]
fn a_url_in_geminis_files_is_the_old_transport() {
    let text = r#"{"theme": "x", "mcpServers": {
        "new": {"httpUrl": "http://h/mcp", "headers": {"A": "b"}, "timeout": 5000, "trust": true},
        "typed": {"url": "http://h/typed", "type": "http"},
        "old": {"url": "http://h/sse"}, "program": {"command": "x", "cwd": "."}}}"#;
    let import = super::import(text);
    assert_eq!(names(&import), ["new", "typed", "program"]);
    assert_eq!(http(&import.entries[0]).headers["A"], "b");
    let words = "`url` is the old HTTP+SSE transport in Gemini's files, which is not supported; \
                 Streamable HTTP is written as `httpUrl`";
    assert_eq!(rejected(&import), [("old", words)]);
    let only_url = r#"{"mcpServers": {"old": {"url": "http://h/sse"}}}"#;
    assert_eq!(names(&super::import(only_url)), ["old"], "elsewhere it is Streamable HTTP");
    let by_folder = import_as(only_url, "/home/me/.gemini/settings.json", None).expect("parses");
    assert_eq!(rejected(&by_folder), [("old", words)]);
    assert_eq!(rejected(&as_form(only_url, Form::Gemini)), [("old", words)]);
}

#[test]
fn inputs_of_vs_code_have_a_default_or_are_asked_for() {
    let import = import(
        r#"{"inputs": [
            {"id": "port", "type": "promptString", "description": "the port", "default": "8080"},
            {"id": "key", "type": "promptString", "description": "API key", "password": true, "default": "x"}],
          "servers": {
            "a": {"type": "http", "url": "http://localhost:${input:port}/mcp"},
            "b": {"command": "x", "env": {"K": "${input:key}"}}, "c": {"command": "${input:unknown}"}}}"#,
    );
    assert_eq!(http(&import.entries[0]).url, "http://localhost:8080/mcp");
    let expected = [
        ("b", "it needs the input `key` (API key), which only an editor can ask for"),
        ("c", "it needs the input `unknown`, which only an editor can ask for"),
    ];
    assert_eq!(rejected(&import), expected);
    let settings = r#"{"editor.tabSize": 2, "mcp": {"servers": {"a": {"command": "x"}}, "inputs": []}}"#;
    assert_eq!(names(&super::import(settings)), ["a"]);
}

#[test]
fn codex_names_the_variables_its_secrets_are_in() {
    let import = import_as(
        r#"
        model = "o3"
        [mcp_servers.docs]
        url = "http://h/mcp"
        bearer_token_env_var = "TOKEN"
        http_headers = { "X-Team" = "a" }
        env_http_headers = { "X-Key" = "TOKEN" }
        [mcp_servers.git]
        command = "uvx"
        args = ["mcp-server-git"]
        env_vars = ["TOKEN"]
        startup_timeout_sec = 20
        [mcp_servers.git.env]
        A = "1"
        [mcp_servers.off]
        command = "x"
        enabled = false
        [mcp_servers.inline]
        url = "http://h/mcp"
        bearer_token = "abc"
        [mcp_servers.ignored]
        url = "http://h/mcp"
        headers = { A = "b" }
        [mcp_servers.unset]
        url = "http://h/mcp"
        bearer_token_env_var = "NOPE"
        "#,
        "config.toml",
        None,
    );
    let import = import.expect("the file parses");
    let docs = import.entries.iter().find(|entry| entry.name == "docs").expect("docs");
    let headers = [("Authorization", "Bearer s3cret"), ("X-Key", "s3cret"), ("X-Team", "a")];
    assert_eq!(http(docs).headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let git = import.entries.iter().find(|entry| entry.name == "git").expect("git");
    assert_eq!(
        stdio(git).env,
        [("A", "1"), ("TOKEN", "s3cret")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );
    let mut reasons = rejected(&import);
    reasons.sort_unstable();
    let expected = [
        ("ignored", "Codex does not read `headers`; it is written as `http_headers`"),
        ("inline", "Codex does not read `bearer_token`; it is written as `bearer_token_env_var`"),
        ("off", "it is switched off in the file"),
        ("unset", "the environment variable `NOPE` is not set"),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn our_own_form_is_strict_about_keys() {
    let import = import_as(
        r#"
        [servers.docs]
        url = "http://h/mcp"
        call_timeout = "90s"
        strategy = "pooled"
        [servers.typo]
        comand = "x"
        [servers.way]
        command = "x"
        strategy = "fast"
        [servers.time]
        command = "x"
        call_timeout = "soon"
        "#,
        "servers.toml",
        None,
    );
    let import = import.expect("the file parses");
    let docs = &import.entries[0].spec;
    assert_eq!((docs.call_timeout_ms, docs.strategy.as_str()), (90_000, "pooled"));
    let mut reasons = rejected(&import);
    reasons.sort_unstable();
    let duration = "duration \"soon\" is not a number with a unit such as \"200ms\", \"2s\", \"5m\"";
    let expected = [
        ("time", duration),
        ("typo", "unknown key `comand`; did you mean `command`?"),
        ("way", "unknown strategy `fast`; one of per_connection, pooled is meant"),
    ];
    assert_eq!(reasons, expected);
    let json = as_form(r#"{"servers": {"a": {"command": "x", "inputs": 1}}}"#, Form::Swarm);
    assert_eq!(rejected(&json), [("a", "unknown key `inputs`")]);
}

#[test]
fn our_bridge_to_a_url_is_the_url() {
    let import = import(
        r#"{"mcpServers": {
            "a": {"command": "/opt/swarm", "args": ["stdio", "--url", "http://h/mcp", "--header", "A: b: c"]},
            "own": {"command": "swarm", "args": ["stdio"]},
            "tls": {"command": "swarm", "args": ["stdio", "--url", "https://h/mcp"]}}}"#,
    );
    assert_eq!(http(&import.entries[0]).url, "http://h/mcp");
    assert_eq!(http(&import.entries[0]).headers["A"], "b: c");
    assert_eq!(stdio(&import.entries[1]).command, "swarm");
    assert_eq!(rejected(&import), [("tls", "https backends are not supported yet (http:// only)")]);
}

#[test]
fn a_form_that_is_not_the_files_is_said_to_be_missing() {
    let refusal = |text: &str, form| import_as(text, "f", Some(form)).expect_err("refused").to_string();
    let claude = r#"{"mcpServers": {}}"#;
    assert_eq!(refusal(claude, Form::Codex), "f is not in the form `codex`: `mcp_servers` is missing");
    assert_eq!(
        refusal(claude, Form::Vscode),
        "f is not in the form `vscode`: an object `servers` is missing"
    );
    let registry =
        "f is not in the form `mcp-registry`: a list `servers`, a `server` or a server.json is missing";
    assert_eq!(refusal(claude, Form::McpRegistry), registry);
    let list = r#"{"servers": []}"#;
    assert_eq!(refusal(list, Form::Swarm), "f is not in the form `swarm`: `servers` is missing");
}

#[test]
fn what_is_in_no_form_at_all_is_named_with_its_place() {
    let refusal = |text: &str, path: &str| import_as(text, path, None).expect_err("refused").to_string();
    let neither = "f:1:7: this is neither JSON, which begins with a brace, nor TOML: ";
    assert!(refusal("hello world", "f").starts_with(neither), "{}", refusal("hello world", "f"));
    assert!(refusal("<html></html>", "f").contains("neither JSON"));
    assert!(refusal("", "f").starts_with("f lists no servers"));
    let twice = "[mcp_servers.a]\ncommand = \"x\"\n[mcp_servers.a]\n";
    assert!(refusal(twice, "c.toml").starts_with("c.toml:3:"), "{}", refusal(twice, "c.toml"));
    assert!(refusal("[{}]", "f.json").starts_with("f.json:1:2: this is neither"));
    assert!(refusal(r#"{"mcpServers": 3}"#, "f").contains("expected an object of servers by name"));
}

#[test]
fn a_prefix_goes_in_front_of_every_name() {
    let text = r#"{"mcpServers": {"a": {"command": "x"}, "b": {}}}"#;
    let prefixed = import(text).prefixed("east-");
    assert_eq!((names(&prefixed), prefixed.rejected[0].name.as_str()), (vec!["east-a"], "east-b"));
    let none = import(text).prefixed("a/");
    assert!(none.rejected[0].reason.contains("has '/' at position 1"), "{:?}", none.rejected);
}

#[test]
fn a_file_has_a_thousand_entries_at_most() {
    let entries: Vec<String> = (0..1002).map(|n| format!(r#""s{n}": {{"command": "x"}}"#)).collect();
    let import = import(&format!(r#"{{"mcpServers": {{{}}}}}"#, entries.join(",")));
    assert_eq!((import.entries.len(), import.rejected.len()), (1000, 2));
    assert_eq!(import.rejected[0].reason, "the file has more than 1000 entries");
}
