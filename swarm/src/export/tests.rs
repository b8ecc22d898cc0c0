use super::*;
use crate::import::{self, Origin};
use std::path::Path;

const FORMS: [Form; 6] =
    [Form::McpJson, Form::Vscode, Form::Codex, Form::Gemini, Form::ClaudeDesktop, Form::Toml];

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn server(name: &str, target: ImportTarget) -> ImportServer {
    ImportServer { name: name.to_owned(), target, strategy: String::new(), call_timeout_ms: 0 }
}

fn stdio(name: &str, args: &[&str], env: &[(&str, &str)]) -> ImportServer {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let (command, cwd) = ("uvx".to_owned(), "/srv/x".to_owned());
    server(name, ImportTarget::Stdio { command, args, env: map(env), cwd })
}

fn http(name: &str, headers: &[(&str, &str)]) -> ImportServer {
    server(name, ImportTarget::Http { url: "http://h:1/mcp".to_owned(), headers: map(headers) })
}

fn servers() -> Vec<ImportServer> {
    vec![
        http("docs", &[("Authorization", "Bearer abc"), ("X-Key", "k: 1")]),
        stdio("git.v2", &["mcp-server-git", "--token", "t\"1"], &[("KEY", "one"), ("LEVEL", "ünïcode")]),
        http("plain", &[]),
        stdio("time", &[], &[("KEY", "two")]),
    ]
}

/// Where `variables` are set.
fn imported(text: &str, variables: &BTreeMap<String, String>) -> Vec<ImportServer> {
    let environment = |name: &str| variables.get(name).cloned();
    let origin = Origin { directory: "/elsewhere".into(), environment: &environment };
    let import = import::parse(text, Path::new("file"), None, &origin).expect("it parses");
    assert_eq!(import.rejected, [], "{text}");
    let mut servers: Vec<ImportServer> = import.entries.into_iter().map(ImportServer::from).collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}

#[test]
fn every_form_is_read_back_as_it_was() {
    for form in FORMS {
        let text = render(&servers(), form).expect("it can be written");
        assert_eq!(imported(&text, &BTreeMap::new()), servers(), "{form:?}\n{text}");
    }
}

#[test]
fn secrets_are_variables_with_which_the_file_works_again() {
    let variables = map(&[
        ("DOCS_AUTHORIZATION", "abc"),
        ("DOCS_X_KEY", "k: 1"),
        ("GIT_V2_TOKEN", "t\"1"),
        ("KEY", "one"),
        ("LEVEL", "ünïcode"),
        ("TIME_KEY", "two"),
    ]);
    for form in FORMS {
        let text = render(&hide(servers()), form).expect("it can be written");
        for secret in ["abc", "k: 1", "t\\\"1", "\"one\"", "ünïcode", "\"two\""] {
            assert!(!text.contains(secret), "{form:?} shows {secret}\n{text}");
        }
        assert_eq!(imported(&text, &variables), servers(), "{form:?}\n{text}");
    }
}

#[test]
fn variables_are_named_after_what_they_hold_and_never_hold_two_values() {
    let hidden = hide(vec![
        stdio("a", &["--api-key=1", "--header", "X: 1"], &[("T", "same"), ("P", "${KEPT}"), ("E", "")]),
        stdio("b", &[], &[("T", "same")]),
        stdio("b.", &[], &[("T", "other")]),
        stdio("b-", &[], &[("T", "third")]),
        http("9", &[("Authorization", "Basic eDp5"), ("Cookie", "c d")]),
        server("c", ImportTarget::Http { url: "http://u:pw@h/".to_owned(), headers: map(&[]) }),
    ]);
    let ImportTarget::Stdio { args, env, .. } = &hidden[0].target else { panic!("not stdio") };
    assert_eq!(args, &["--api-key=${A_API_KEY}", "--header", "${A_HEADER}"]);
    assert_eq!(*env, map(&[("T", "${T}"), ("P", "${KEPT}"), ("E", "")]));
    let t = |index: usize| match &hidden[index].target {
        ImportTarget::Stdio { env, .. } => env["T"].clone(),
        ImportTarget::Http { .. } => String::new(),
    };
    assert_eq!([t(1), t(2), t(3)], ["${T}", "${B__T}", "${B__T_2}"]);
    let ImportTarget::Http { headers, .. } = &hidden[4].target else { panic!("not http") };
    assert_eq!(*headers, map(&[("Authorization", "Basic ${_9_AUTHORIZATION}"), ("Cookie", "${_9_COOKIE}")]));
    let ImportTarget::Http { url, .. } = &hidden[5].target else { panic!("not http") };
    assert_eq!(url, "http://u:${C_PASSWORD}@h/");
}

#[test]
fn each_client_gets_its_own_words() {
    let hidden = hide(servers());
    let json = |form| serde_json::from_str::<Value>(&render(&hidden, form).expect("written")).expect("json");
    assert_eq!(json(Form::McpJson)["mcpServers"]["docs"]["type"], "http");
    assert_eq!(json(Form::Gemini)["mcpServers"]["docs"]["httpUrl"], "http://h:1/mcp");
    let vscode = json(Form::Vscode);
    assert_eq!(vscode["servers"]["docs"]["headers"]["Authorization"], "Bearer ${env:DOCS_AUTHORIZATION}");
    assert_eq!(vscode["servers"]["time"]["type"], "stdio");
    let bridge = &json(Form::ClaudeDesktop)["mcpServers"]["plain"];
    assert_eq!(*bridge, json!({"command": "swarm", "args": ["stdio", "--url", "http://h:1/mcp"]}));
    let codex: toml::Table = render(&hidden, Form::Codex).expect("written").parse().expect("toml");
    let docs = &codex["mcp_servers"]["docs"];
    assert_eq!(docs["bearer_token_env_var"].as_str(), Some("DOCS_AUTHORIZATION"));
    assert_eq!(docs["env_http_headers"]["X-Key"].as_str(), Some("DOCS_X_KEY"));
    assert_eq!(codex["mcp_servers"]["git.v2"]["env_vars"][0].as_str(), Some("KEY"));
    assert_eq!(codex["mcp_servers"]["time"]["env"]["KEY"].as_str(), Some("${TIME_KEY}"));
}

#[test]
fn our_own_form_holds_what_others_have_no_word_for() {
    let tuned = ImportServer { strategy: "pooled".to_owned(), call_timeout_ms: 1500, ..http("a", &[]) };
    let text = render(std::slice::from_ref(&tuned), Form::Toml).expect("written");
    assert_eq!(imported(&text, &BTreeMap::new()), [tuned]);
}

#[test]
fn nothing_is_a_file_too() {
    for form in FORMS {
        let text = render(&[], form).expect("written");
        assert_eq!(imported(&text, &BTreeMap::new()), [], "{form:?}\n{text}");
    }
}
