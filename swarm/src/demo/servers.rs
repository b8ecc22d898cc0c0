//! Which MCP servers the demo shows: real ones of this machine, else the built-in example.

use crate::{
    api::{ImportServer, ImportTarget},
    error::CliError,
    import::{self, Import},
    imports,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// Known servers: name in the demo, program, and a call that needs nothing.
const KNOWN: [(&str, &str); 2] = [("time", "mcp-server-time"), ("git", "mcp-server-git")];
const UVX_DEADLINE: Duration = Duration::from_secs(3);

/// The demo's servers as the `mcpServers` file that every node imports.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    file: Value,
}

impl Servers {
    /// Those of a file, or what this machine has.
    pub(super) async fn find(file: Option<&Path>) -> Result<Servers, CliError> {
        let mut servers = Map::new();
        match file {
            Some(file) => servers = of_file(file)?,
            None => {
                for (name, program) in KNOWN {
                    if let Some(command) = installed(program).await {
                        servers.insert(name.to_owned(), command);
                    }
                }
            }
        }
        if servers.is_empty() {
            servers.insert("example".to_owned(), example_entry());
        }
        Ok(Servers { file: json!({ "mcpServers": servers }) })
    }

    /// The file for `swarm up --import`.
    pub(super) fn file(&self) -> &Value {
        &self.file
    }

    /// Names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let servers = self.file["mcpServers"].as_object().into_iter().flatten();
        servers.map(|(name, _)| name.clone()).collect()
    }

    /// A tool without side effects and its arguments, if one of the known servers is there.
    pub(super) fn known_call(&self) -> Option<(&'static str, Value)> {
        let has = |name: &str| self.file["mcpServers"].get(name).is_some();
        if has("time") {
            return Some(("time_get_current_time", json!({ "timezone": "UTC" })));
        }
        has("example").then(|| ("example_echo", json!({ "text": "hello" })))
    }

    /// The same as a command line.
    pub(super) fn call_line(&self) -> String {
        let Some((tool, arguments)) = self.known_call() else {
            return "swarm tools list".to_owned();
        };
        let words = arguments.as_object().into_iter().flatten();
        let words = words.map(|(key, value)| format!(" {key}={}", value.as_str().unwrap_or_default()));
        format!("swarm call {tool}{}", words.collect::<String>())
    }
}

/// A backend that comes and goes during the demo.
pub(super) fn passing_server(name: &str) -> ImportServer {
    let command = own_program().to_string_lossy().into_owned();
    let args = vec!["example-server".to_owned()];
    let target = ImportTarget::Stdio { command, args, env: BTreeMap::new(), cwd: String::new() };
    ImportServer { name: name.to_owned(), target, strategy: String::new(), call_timeout_ms: 0 }
}

fn example_entry() -> Value {
    json!({ "command": own_program(), "args": ["example-server"] })
}

/// This very binary.
pub(super) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("swarm"))
}

fn of_file(file: &Path) -> Result<Map<String, Value>, CliError> {
    let Import { entries, rejected } = import::read(file)
        .map_err(|error| CliError::new(crate::error::Failure::Config, error.to_string()))?;
    for bad in rejected {
        imports::tell(&file.to_string_lossy(), &bad.name, &bad.reason);
    }
    let entry = |entry: import::Entry| {
        let server = ImportServer::from(entry);
        (server.name.clone(), serde_json::to_value(&server.target).unwrap_or_default())
    };
    let mut servers: Map<String, Value> = entries.into_iter().map(entry).collect();
    for server in servers.values_mut().filter_map(Value::as_object_mut) {
        // The file's own word for it is `type`, and a directory that is not named is not there.
        server.remove("transport");
        server.retain(|key, value| !(key == "cwd" && value == ""));
    }
    Ok(servers)
}

/// The program itself, or what `uvx` has in its cache: the demo needs no network.
async fn installed(program: &str) -> Option<Value> {
    if let Some(path) = on_path(program) {
        return Some(json!({ "command": path }));
    }
    let uvx = on_path("uvx")?;
    let mut probe = tokio::process::Command::new(&uvx);
    probe.args(["--offline", program, "--help"]).kill_on_drop(true);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = tokio::time::timeout(UVX_DEADLINE, probe.status()).await.ok()?.ok()?;
    status.success().then(|| json!({ "command": uvx, "args": ["--offline", program] }))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
