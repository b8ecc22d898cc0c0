//! Reading the MCP server lists that people already have: `.mcp.json`, Claude Desktop, Cursor
//! (`mcpServers`) and VS Code (`servers`).
//!
//! A bad entry never hides the good ones: it comes back in [`Import::rejected`] with its reason.
//! Parsing is pure; the environment and the place of the file come in through [`Origin`].

mod expand;
mod jsonc;

use crate::api::{ImportServer, ImportTarget};
use proto::registry::{BackendSpec, HttpTransport, StdioTransport, backend_spec::Transport};
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;
/// Most entries taken from one file.
pub const MAX_ENTRIES: usize = 1000;

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub struct Import {
    /// Backends, in the order of the file.
    pub entries: Vec<Entry>,
    /// Entries that cannot be served, each with its reason.
    pub rejected: Vec<Rejected>,
}

/// One usable backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name in the registry.
    pub name: String,
    /// How it is reached.
    pub spec: BackendSpec,
}

impl From<ImportServer> for Entry {
    fn from(server: ImportServer) -> Entry {
        let transport = match server.target {
            ImportTarget::Stdio { command, args, env, cwd } => {
                Transport::Stdio(StdioTransport { command, args, env, cwd })
            }
            ImportTarget::Http { url, headers } => Transport::Http(HttpTransport { url, headers }),
        };
        let spec = BackendSpec { transport: Some(transport), ..BackendSpec::default() };
        Entry { name: server.name, spec }
    }
}

impl From<Entry> for ImportServer {
    fn from(entry: Entry) -> ImportServer {
        let target = match entry.spec.transport {
            Some(Transport::Stdio(StdioTransport { command, args, env, cwd })) => {
                ImportTarget::Stdio { command, args, env, cwd }
            }
            Some(Transport::Http(HttpTransport { url, headers })) => ImportTarget::Http { url, headers },
            None => ImportTarget::Http { url: String::new(), headers: BTreeMap::new() },
        };
        ImportServer { name: entry.name, target }
    }
}

/// One entry that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The name in the file.
    pub name: String,
    /// Why not, in words.
    pub reason: String,
}

/// Where a file came from: what its variables and relative paths mean.
pub struct Origin<'a> {
    /// Directory of the file.
    pub directory: PathBuf,
    /// Looks up an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
}

/// The file as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not JSON of the expected shape.
    #[error("{path}:{line}:{column}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// Neither `mcpServers` nor `servers` is there.
    #[error("{path} has neither `mcpServers` nor `servers`")]
    NoServers {
        /// The file.
        path: PathBuf,
    },
}

/// Reads and parses `path` with this process's environment.
pub fn read(path: &Path) -> Result<Import, ImportError> {
    let failed = |source| ImportError::Read { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(ImportError::TooLarge { path: path.into() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let origin = Origin {
        directory: absolute.parent().map(Path::to_path_buf).unwrap_or_default(),
        environment: &|name| std::env::var(name).ok(),
    };
    parse(&text, path, &origin)
}

/// Parses the text of the file `path`. Comments and trailing commas are allowed, as editors do.
pub fn parse(text: &str, path: &Path, origin: &Origin<'_>) -> Result<Import, ImportError> {
    let plain = jsonc::to_json(text);
    let file: File = serde_json::from_str(&plain).map_err(|error| ImportError::Syntax {
        path: path.into(),
        line: error.line(),
        column: error.column(),
        message: words(&error),
    })?;
    let Some(servers) = file.mcp_servers.or(file.servers) else {
        return Err(ImportError::NoServers { path: path.into() });
    };
    Ok(sort_out(servers.0, origin))
}

/// serde_json appends the position to its message; it is printed in front here.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

fn sort_out(servers: Vec<(String, Value)>, origin: &Origin<'_>) -> Import {
    let mut import = Import::default();
    for (index, (name, value)) in servers.into_iter().enumerate() {
        let taken = import.entries.iter().any(|entry| entry.name == name);
        let result = if index >= MAX_ENTRIES {
            Err(format!("the file has more than {MAX_ENTRIES} entries"))
        } else if taken {
            Err("the name is used twice in the file".to_owned())
        } else {
            backend(&name, value, origin)
        };
        match result {
            Ok(spec) => import.entries.push(Entry { name, spec }),
            Err(reason) => import.rejected.push(Rejected { name, reason }),
        }
    }
    import
}

fn backend(name: &str, value: Value, origin: &Origin<'_>) -> Result<BackendSpec, String> {
    proto::ids::check_name(name).map_err(|error| error.to_string())?;
    let Value::Object(fields) = value else {
        return Err("the entry is not an object".to_owned());
    };
    let fields = Fields { fields: &fields, origin };
    if fields.flag("disabled") || fields.fields.get("enabled") == Some(&Value::Bool(false)) {
        return Err("it is switched off in the file".to_owned());
    }
    let command = fields.text(&["command"])?;
    let url = fields.text(&["url", "httpUrl", "serverUrl"])?;
    let kind = fields.text(&["type", "transport"])?;
    let transport = match (command, url) {
        (Some(_), Some(_)) => return Err("it has both a command and a url".to_owned()),
        (None, None) => return Err("it has neither a command nor a url".to_owned()),
        (Some(command), None) => Transport::Stdio(fields.stdio(command, kind.as_deref())?),
        (None, Some(url)) => Transport::Http(fields.http(url, kind.as_deref())?),
    };
    Ok(BackendSpec { transport: Some(transport), ..BackendSpec::default() })
}

struct Fields<'a> {
    fields: &'a serde_json::Map<String, Value>,
    origin: &'a Origin<'a>,
}

impl Fields<'_> {
    fn flag(&self, key: &str) -> bool {
        self.fields.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The first of `keys` that is there, expanded.
    fn text(&self, keys: &[&str]) -> Result<Option<String>, String> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, self.fields.get(*key)?))) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| format!("`{key}` is not a string"))?;
        expand::expand(text, self.origin).map(Some)
    }

    fn stdio(&self, command: String, kind: Option<&str>) -> Result<StdioTransport, String> {
        if let Some(kind) = kind.filter(|kind| *kind != "stdio") {
            return Err(format!("it has a command, but its type is `{kind}`"));
        }
        if command.trim().is_empty() {
            return Err("the command is empty".to_owned());
        }
        let cwd = self.text(&["cwd"])?.map(|cwd| self.directory(&cwd)).unwrap_or_default();
        Ok(StdioTransport { command, args: self.list("args")?, env: self.map("env")?, cwd })
    }

    fn http(&self, url: String, kind: Option<&str>) -> Result<HttpTransport, String> {
        match kind {
            None | Some("http" | "streamable-http" | "streamableHttp" | "streamable_http") => {}
            Some("sse") => return Err("the old HTTP+SSE transport is not supported yet".to_owned()),
            Some(kind) => return Err(format!("unknown type `{kind}`")),
        }
        check_url(&url)?;
        Ok(HttpTransport { url, headers: self.map("headers")? })
    }

    /// Relative directories are meant relative to the file.
    fn directory(&self, cwd: &str) -> String {
        self.origin.directory.join(cwd).to_string_lossy().into_owned()
    }

    fn list(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(value) = self.fields.get(key) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| format!("`{key}` is not a list"))?;
        items.iter().map(|item| self.scalar(key, item)).collect()
    }

    fn map(&self, key: &str) -> Result<BTreeMap<String, String>, String> {
        let Some(value) = self.fields.get(key) else { return Ok(BTreeMap::new()) };
        let items = value.as_object().ok_or_else(|| format!("`{key}` is not an object"))?;
        items.iter().map(|(name, item)| Ok((name.clone(), self.scalar(name, item)?))).collect()
    }

    fn scalar(&self, key: &str, value: &Value) -> Result<String, String> {
        match value {
            Value::String(text) => expand::expand(text, self.origin),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(flag) => Ok(flag.to_string()),
            _ => Err(format!("`{key}` holds something that is not a string")),
        }
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let parsed: http::Uri = url.parse().map_err(|error| format!("`{url}` is not a url: {error}"))?;
    match parsed.scheme_str() {
        Some("http") if parsed.host().is_some() => Ok(()),
        Some("https") => Err("https backends are not supported yet (http:// only)".to_owned()),
        _ => Err(format!("`{url}` is not an http:// url")),
    }
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(rename = "mcpServers")]
    mcp_servers: Option<Servers>,
    servers: Option<Servers>,
}

/// An object in the order of the file, repeated names included.
struct Servers(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Servers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
                Ok(Servers(servers))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

#[cfg(test)]
mod tests;
