//! Reading the MCP server lists that people already have.
//!
//! | form | known by | from |
//! |---|---|---|
//! | `mcp-json` | `mcpServers` | `.mcp.json`, Claude Desktop, Claude Code (its `projects` too), Cursor |
//! | `gemini` | `mcpServers` with an `httpUrl`, or a `.gemini` folder | Gemini CLI |
//! | `vscode` | `servers`, an object | VS Code, with its `inputs` |
//! | `codex` | `mcp_servers` in TOML | Codex |
//! | `mcp-registry` | `servers`, a list; `server`; `packages` or `remotes` | the MCP registry API, `server.json` |
//! | `swarm` | `servers` in TOML | our own, strict about keys |
//!
//! A bad entry never hides the good ones: it comes back in [`Import::rejected`] with its reason.
//! Parsing is pure; the environment and the place of the file come in through [`Origin`].

mod codex;
mod document;
mod expand;
mod fields;
mod jsonc;
mod own;
mod published;

pub use document::Form;

use crate::api::{ImportServer, ImportTarget};
use document::{Document, Listed};
use expand::Scope;
use proto::registry::{BackendSpec, HttpTransport, StdioTransport, backend_spec::Transport};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Largest file that is read, in bytes (Claude Code keeps its history beside its servers).
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;
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
        let spec = BackendSpec {
            transport: Some(transport),
            strategy: server.strategy,
            call_timeout_ms: server.call_timeout_ms,
            ..BackendSpec::default()
        };
        Entry { name: server.name, spec }
    }
}

impl From<Entry> for ImportServer {
    fn from(entry: Entry) -> ImportServer {
        let BackendSpec { transport, strategy, call_timeout_ms, .. } = entry.spec;
        let target = match transport {
            Some(Transport::Stdio(StdioTransport { command, args, env, cwd })) => {
                ImportTarget::Stdio { command, args, env, cwd }
            }
            Some(Transport::Http(HttpTransport { url, headers })) => ImportTarget::Http { url, headers },
            None => ImportTarget::Http { url: String::new(), headers: BTreeMap::new() },
        };
        ImportServer { name: entry.name, target, strategy, call_timeout_ms }
    }
}

/// What neither the registry nor an edge would take, whoever sends it.
///
/// # Errors
/// The reason, in words.
pub fn check(entry: &Entry) -> Result<(), String> {
    proto::ids::check_name(&entry.name).map_err(|error| error.to_string())?;
    match &entry.spec.transport {
        Some(Transport::Http(http)) => fields::check_url(&http.url),
        _ => Ok(()),
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
    /// It is not JSON or TOML of the expected shape.
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
    /// No known list of servers is there.
    #[error(
        "{path} lists no servers: it has none of `mcpServers` (Claude, Cursor, Gemini), `servers` \
         (VS Code, MCP registry, swarm) and `mcp_servers` (Codex)"
    )]
    NoServers {
        /// The file.
        path: PathBuf,
    },
    /// It is not in the form that was asked for.
    #[error("{path} is not in the form `{form}`: {missing} is missing")]
    OtherForm {
        /// The file.
        path: PathBuf,
        /// The form.
        form: &'static str,
        /// The key that tells it.
        missing: &'static str,
    },
}

/// Reads and parses `path` with this process's environment.
pub fn read(path: &Path) -> Result<Import, ImportError> {
    read_as(path, None)
}

/// As [`read`], in a form that is given or found out.
pub fn read_as(path: &Path, form: Option<Form>) -> Result<Import, ImportError> {
    let failed = |source| ImportError::Read { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(ImportError::TooLarge { path: path.into() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let directory = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
    parse_here(&text, path, form, directory)
}

/// Parses what did not come from a file, with this process's environment; `name` stands for it in
/// errors.
pub fn parse_here(
    text: &str,
    name: &Path,
    form: Option<Form>,
    directory: PathBuf,
) -> Result<Import, ImportError> {
    let origin = Origin { directory, environment: &|name| std::env::var(name).ok() };
    parse(text, name, form, &origin)
}

/// Parses the text of the file `path`, in a form that is given or found out. Comments and trailing
/// commas in JSON are allowed, as editors do.
pub fn parse(
    text: &str,
    path: &Path,
    form: Option<Form>,
    origin: &Origin<'_>,
) -> Result<Import, ImportError> {
    let document = Document::parse(text, path)?;
    let form = match form {
        Some(form) => form,
        None => document.form(path).ok_or_else(|| ImportError::NoServers { path: path.into() })?,
    };
    let scope = Scope::new(origin, document.inputs(), form);
    match document.listed(form) {
        Some(Listed::Named(servers)) => Ok(named(servers, &scope)),
        Some(Listed::Published(servers)) => Ok(published(&servers, origin)),
        None => Err(form.missing_in(path)),
    }
}

/// Entries of the MCP registry API, of however many pages.
pub fn published(servers: &[Value], origin: &Origin<'_>) -> Import {
    let mut import = Import::default();
    for server in servers {
        if let Some((name, spec)) = published::entry(server, origin) {
            import.add(name, spec);
        }
    }
    import
}

fn named(servers: Vec<(String, Value)>, scope: &Scope<'_>) -> Import {
    let mut import = Import::default();
    for (name, value) in servers {
        let spec = proto::ids::check_name(&name)
            .map_err(|error| error.to_string())
            .and_then(|()| fields::backend(&value, scope));
        import.add(name, spec);
    }
    import
}

impl Import {
    /// Takes one more entry, unless it says something else under a name that is taken.
    fn add(&mut self, name: String, spec: Result<BackendSpec, String>) {
        let full = self.entries.len() + self.rejected.len() >= MAX_ENTRIES;
        let taken = self.entries.iter().find(|entry| entry.name == name);
        let outcome = match (spec, taken) {
            (Err(reason), _) => Err(reason),
            // Two projects of Claude Code often name the same server.
            (Ok(spec), Some(taken)) if taken.spec == spec => return,
            (Ok(_), Some(_)) => Err("the name is used twice in the file, for different servers".to_owned()),
            (Ok(_), None) if full => Err(format!("the file has more than {MAX_ENTRIES} entries")),
            (Ok(spec), None) => Ok(spec),
        };
        match outcome {
            Ok(spec) => self.entries.push(Entry { name, spec }),
            Err(reason) => self.rejected.push(Rejected { name, reason }),
        }
    }

    /// Puts `prefix` in front of every name; what is no name then is rejected.
    pub fn prefixed(self, prefix: &str) -> Import {
        let mut import = Import::default();
        for Entry { name, spec } in self.entries {
            let name = format!("{prefix}{name}");
            let checked = proto::ids::check_name(&name).map_err(|error| error.to_string());
            import.add(name, checked.map(|()| spec));
        }
        let named = |bad: Rejected| Rejected { name: format!("{prefix}{}", bad.name), ..bad };
        import.rejected.extend(self.rejected.into_iter().map(named));
        import
    }
}

#[cfg(test)]
mod tests;
