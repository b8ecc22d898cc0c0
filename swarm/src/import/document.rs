//! The file as a whole: JSON or TOML, which form it is in, and where its servers are.

use super::{ImportError, jsonc};
use serde::{
    Deserialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::{fmt, path::Path};

/// Forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// `mcpServers`: .mcp.json, Claude Desktop, Claude Code, Cursor
    #[value(alias = "claude-desktop", alias = "claude-code", alias = "cursor")]
    McpJson,
    /// `servers` and `inputs`: .vscode/mcp.json
    Vscode,
    /// `[mcp_servers.x]`: ~/.codex/config.toml
    Codex,
    /// `mcpServers`, where `url` is the old SSE transport: ~/.gemini/settings.json
    Gemini,
    /// The answer of an MCP registry, or a server.json
    McpRegistry,
    /// Our own, TOML or JSON: `[servers.x]`, strict about keys
    Swarm,
}

impl Form {
    pub(super) fn missing_in(self, path: &Path) -> ImportError {
        let (form, missing) = match self {
            Form::McpJson => ("mcp-json", "`mcpServers`"),
            Form::Vscode => ("vscode", "an object `servers`"),
            Form::Codex => ("codex", "`mcp_servers`"),
            Form::Gemini => ("gemini", "`mcpServers`"),
            Form::McpRegistry => ("mcp-registry", "a list `servers`, a `server` or a server.json"),
            Form::Swarm => ("swarm", "`servers`"),
        };
        ImportError::OtherForm { path: path.into(), form, missing }
    }
}

/// The servers of a document.
pub(super) enum Listed {
    /// By name, in the order of the file, repeated names included.
    Named(Vec<(String, Value)>),
    /// Entries of the MCP registry API.
    Published(Vec<Value>),
}

/// What may be of interest in a file, whatever its form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    #[serde(rename = "mcpServers")]
    mcp_servers: Option<Servers>,
    servers: Option<Servers>,
    /// Codex's, in TOML only.
    #[serde(skip)]
    mcp_servers_toml: Option<Servers>,
    /// VS Code.
    inputs: Value,
    /// VS Code's settings.json keeps the whole file under this key.
    mcp: Value,
    /// Claude Code: servers by the folder of the project.
    projects: Value,
    /// One entry of a registry.
    server: Value,
    /// server.json.
    name: Value,
    version: Value,
    packages: Value,
    remotes: Value,
    #[serde(skip)]
    toml: bool,
}

impl Document {
    /// Objects begin with a brace in JSON and with anything else in TOML.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Document, ImportError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match text.trim_start().bytes().next() {
            Some(b'{' | b'/') if !is_toml(path) => of_json(text, path),
            _ => of_toml(text, path),
        }
    }

    /// The form, unless there are no servers in any.
    pub(super) fn form(&self, path: &Path) -> Option<Form> {
        if self.mcp_servers_toml.is_some() {
            return Some(Form::Codex);
        }
        if self.mcp_servers.is_some() || !self.of_projects().is_empty() {
            return Some(if self.is_gemini(path) { Form::Gemini } else { Form::McpJson });
        }
        match &self.servers {
            Some(Servers::List(_)) => return Some(Form::McpRegistry),
            Some(Servers::Object(_)) if self.toml => return Some(Form::Swarm),
            Some(Servers::Object(_)) => return Some(Form::Vscode),
            None => {}
        }
        if self.nested().is_some() {
            return Some(Form::Vscode);
        }
        self.is_published().then_some(Form::McpRegistry)
    }

    fn is_gemini(&self, path: &Path) -> bool {
        let Some(Servers::Object(servers)) = &self.mcp_servers else { return false };
        let folder = path.parent().is_some_and(|folder| folder.ends_with(".gemini"));
        folder || servers.iter().any(|(_, server)| server.get("httpUrl").is_some())
    }

    fn is_published(&self) -> bool {
        let server_json = self.name.is_string() && self.version.is_string();
        let reachable = self.packages.is_array() || self.remotes.is_array();
        self.server.is_object() || (server_json && reachable)
    }

    /// VS Code's definitions of what its user is asked for.
    pub(super) fn inputs(&self) -> Vec<Value> {
        let inputs = if self.inputs.is_array() { &self.inputs } else { &self.mcp["inputs"] };
        inputs.as_array().cloned().unwrap_or_default()
    }

    /// The servers in the place where `form` has them.
    pub(super) fn listed(self, form: Form) -> Option<Listed> {
        match form {
            Form::McpJson => {
                let of_projects = self.of_projects();
                match self.mcp_servers.and_then(Servers::object) {
                    Some(own) => Some(Listed::Named([own, of_projects].concat())),
                    None => (!of_projects.is_empty()).then_some(Listed::Named(of_projects)),
                }
            }
            Form::Gemini => self.mcp_servers?.object().map(Listed::Named),
            Form::Codex => self.mcp_servers_toml?.object().map(Listed::Named),
            Form::Swarm => self.servers?.object().map(Listed::Named),
            Form::Vscode => {
                let nested = self.nested();
                self.servers.and_then(Servers::object).or(nested).map(Listed::Named)
            }
            Form::McpRegistry => self.published().map(Listed::Published),
        }
    }

    fn published(self) -> Option<Vec<Value>> {
        if let Some(Servers::List(servers)) = self.servers {
            return Some(servers);
        }
        if self.server.is_object() {
            return Some(vec![self.server]);
        }
        let server_json = serde_json::json!({
            "name": self.name, "version": self.version, "packages": self.packages, "remotes": self.remotes,
        });
        self.name.is_string().then(|| vec![server_json])
    }

    /// All servers of all projects.
    fn of_projects(&self) -> Vec<(String, Value)> {
        let projects = self.projects.as_object().into_iter().flatten();
        let servers = projects.filter_map(|(_, project)| project.get("mcpServers")?.as_object());
        servers.flatten().map(|(name, server)| (name.clone(), server.clone())).collect()
    }

    fn nested(&self) -> Option<Vec<(String, Value)>> {
        let servers = self.mcp.get("servers")?.as_object()?;
        Some(servers.iter().map(|(name, server)| (name.clone(), server.clone())).collect())
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn of_json(text: &str, path: &Path) -> Result<Document, ImportError> {
    let plain = jsonc::to_json(text);
    serde_json::from_str(&plain).map_err(|error| ImportError::Syntax {
        path: path.into(),
        line: error.line(),
        column: error.column(),
        message: words(&error),
    })
}

/// serde_json appends the position to its message; it is printed in front here.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[derive(Deserialize)]
struct Toml {
    mcp_servers: Option<Servers>,
    servers: Option<Servers>,
}

fn of_toml(text: &str, path: &Path) -> Result<Document, ImportError> {
    let Toml { mcp_servers, servers } = toml::from_str(text).map_err(|error| not_toml(text, path, &error))?;
    Ok(Document { mcp_servers_toml: mcp_servers, servers, toml: true, ..Document::default() })
}

fn not_toml(text: &str, path: &Path, error: &toml::de::Error) -> ImportError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let what = error.message().lines().next().unwrap_or_default();
    let message = if is_toml(path) {
        what.to_owned()
    } else {
        format!("this is neither JSON, which begins with a brace, nor TOML: {what}")
    };
    ImportError::Syntax {
        path: path.into(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message,
    }
}

/// An object in the order of the file, repeated names included; or a list.
#[derive(Debug)]
enum Servers {
    Object(Vec<(String, Value)>),
    List(Vec<Value>),
}

impl Servers {
    fn object(self) -> Option<Vec<(String, Value)>> {
        match self {
            Servers::Object(servers) => Some(servers),
            Servers::List(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Ordered)
    }
}

struct Ordered;

impl<'de> Visitor<'de> for Ordered {
    type Value = Servers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of servers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Servers, A::Error> {
        let mut servers = Vec::new();
        while let Some(entry) = map.next_entry()? {
            servers.push(entry);
        }
        Ok(Servers::Object(servers))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Servers, A::Error> {
        let mut servers = Vec::new();
        while let Some(entry) = list.next_element()? {
            servers.push(entry);
        }
        Ok(Servers::List(servers))
    }
}
