//! The registry as a file of a client: what [`crate::import`] reads, written. Pure.
//!
//! Exported and imported again nothing changes. A form that has no word for something leaves it
//! out (`strategy` and `call_timeout`), and the import keeps what stands. Secrets are variables
//! (`${NAME}`) unless they are asked for: see [`hide`].

mod codex;
mod hide;

pub use hide::hide;

use crate::api::{ImportServer, ImportTarget};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Forms that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// .mcp.json of Claude Code; Cursor reads it too
    #[default]
    McpJson,
    /// .vscode/mcp.json
    Vscode,
    /// ~/.codex/config.toml
    Codex,
    /// ~/.gemini/settings.json
    Gemini,
    /// claude_desktop_config.json; URLs through `swarm stdio`, for it starts programs only
    ClaudeDesktop,
    /// Our own, for `swarm registry apply`
    Toml,
}

/// The text of the file.
///
/// # Errors
/// When a value cannot be written in TOML.
pub fn render(servers: &[ImportServer], form: Form) -> Result<String, toml::ser::Error> {
    let named = |entry: fn(&ImportServer) -> Value| {
        let entries = servers.iter().map(|server| (server.name.clone(), entry(server)));
        Value::Object(entries.collect())
    };
    match form {
        Form::McpJson => Ok(pretty(&json!({ "mcpServers": named(mcp_json) }))),
        Form::Gemini => Ok(pretty(&json!({ "mcpServers": named(gemini) }))),
        Form::ClaudeDesktop => Ok(pretty(&json!({ "mcpServers": named(claude_desktop) }))),
        Form::Vscode => Ok(pretty(&json!({ "servers": named(vscode) }))),
        Form::Codex => toml::to_string(&json!({ "mcp_servers": named(codex::entry) })),
        Form::Toml => toml::to_string(&json!({ "servers": named(own) })),
    }
}

fn pretty(value: &Value) -> String {
    crate::output::pretty(value)
}

/// Only what is there.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    let there = fields.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(there.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn mcp_json(server: &ImportServer) -> Value {
    match &server.target {
        ImportTarget::Http { url, headers } => {
            object([("type", json!("http")), ("url", json!(url)), ("headers", json!(headers))])
        }
        stdio => process(stdio),
    }
}

fn gemini(server: &ImportServer) -> Value {
    match &server.target {
        ImportTarget::Http { url, headers } => object([("httpUrl", json!(url)), ("headers", json!(headers))]),
        stdio => process(stdio),
    }
}

/// VS Code writes variables of the environment as `${env:NAME}`.
fn vscode(server: &ImportServer) -> Value {
    let (kind, entry) = match &server.target {
        ImportTarget::Http { .. } => ("http", mcp_json(server)),
        stdio => ("stdio", process(stdio)),
    };
    let mut entry = of_environment(entry);
    entry["type"] = json!(kind);
    entry
}

fn of_environment(value: Value) -> Value {
    match value {
        Value::String(text) => json!(text.replace("${", "${env:")),
        Value::Array(items) => items.into_iter().map(of_environment).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, of_environment(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// It starts programs only: ours is the bridge to a URL.
fn claude_desktop(server: &ImportServer) -> Value {
    let ImportTarget::Http { url, headers } = &server.target else { return process(&server.target) };
    let mut args = vec!["stdio".to_owned(), "--url".to_owned(), url.clone()];
    for (name, value) in headers {
        args.extend(["--header".to_owned(), format!("{name}: {value}")]);
    }
    json!({ "command": "swarm", "args": args })
}

fn own(server: &ImportServer) -> Value {
    let mut entry = match &server.target {
        ImportTarget::Http { url, headers } => object([("url", json!(url)), ("headers", json!(headers))]),
        stdio => process(stdio),
    };
    if server.call_timeout_ms > 0 {
        let timeout = Duration::from_millis(server.call_timeout_ms.into());
        entry["call_timeout"] = json!(kit::config::duration::format(timeout));
    }
    if !server.strategy.is_empty() {
        entry["strategy"] = json!(server.strategy);
    }
    entry
}

fn process(target: &ImportTarget) -> Value {
    let none = BTreeMap::new();
    let (command, args, env, cwd) = match target {
        ImportTarget::Stdio { command, args, env, cwd } => {
            (command.as_str(), args.as_slice(), env, cwd.as_str())
        }
        ImportTarget::Http { .. } => ("", [].as_slice(), &none, ""),
    };
    object([("command", json!(command)), ("args", json!(args)), ("env", json!(env)), ("cwd", json!(cwd))])
}

#[cfg(test)]
mod tests;
