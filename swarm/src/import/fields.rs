//! One entry of a file that lists its servers by name.

use super::{Form, codex, expand::Scope, own};
use proto::registry::{BackendSpec, HttpTransport, StdioTransport, backend_spec::Transport};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The backend that an entry describes, or why it describes none that can be served.
pub(super) fn backend(value: &Value, scope: &Scope<'_>) -> Result<BackendSpec, String> {
    let Value::Object(fields) = value else {
        return Err("the entry is not an object".to_owned());
    };
    let fields = Fields { fields, scope };
    if scope.form == Form::Swarm {
        own::check_keys(fields.fields)?;
    }
    if fields.flag("disabled") || fields.fields.get("enabled") == Some(&Value::Bool(false)) {
        return Err("it is switched off in the file".to_owned());
    }
    let command = fields.text(&["command"])?;
    let url = fields.url()?;
    let kind = fields.text(&["type", "transport"])?;
    let transport = match (command, url) {
        (Some(_), Some(_)) => return Err("it has both a command and a url".to_owned()),
        (None, None) => return Err("it has neither a command nor a url".to_owned()),
        (Some(command), None) => fields.stdio(command, kind.as_deref())?,
        (None, Some(url)) => Transport::Http(fields.http(url, kind.as_deref())?),
    };
    let spec = BackendSpec { transport: Some(transport), ..BackendSpec::default() };
    if scope.form == Form::Swarm { own::tuned(spec, &fields) } else { Ok(spec) }
}

/// The keys of one entry.
pub(super) struct Fields<'a> {
    pub(super) fields: &'a Map<String, Value>,
    pub(super) scope: &'a Scope<'a>,
}

impl Fields<'_> {
    fn flag(&self, key: &str) -> bool {
        self.fields.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The first of `keys` that is there, expanded.
    pub(super) fn text(&self, keys: &[&str]) -> Result<Option<String>, String> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, self.fields.get(*key)?))) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| format!("`{key}` is not a string"))?;
        self.scope.expand(text).map(Some)
    }

    /// In Gemini's files a `url` without a type is the old transport.
    fn url(&self) -> Result<Option<String>, String> {
        let has = |key: &str| self.fields.contains_key(key);
        if self.scope.form == Form::Gemini && has("url") && !has("httpUrl") && !has("type") {
            let words = "`url` is the old HTTP+SSE transport in Gemini's files, which is not supported; \
                         Streamable HTTP is written as `httpUrl`";
            return Err(words.to_owned());
        }
        self.text(&["httpUrl", "url", "serverUrl"])
    }

    fn stdio(&self, command: String, kind: Option<&str>) -> Result<Transport, String> {
        if let Some(kind) = kind.filter(|kind| *kind != "stdio") {
            return Err(format!("it has a command, but its type is `{kind}`"));
        }
        if command.trim().is_empty() {
            return Err("the command is empty".to_owned());
        }
        let cwd = self.text(&["cwd"])?.map(|cwd| self.directory(&cwd)).unwrap_or_default();
        let mut env = self.map("env")?;
        if self.scope.form == Form::Codex {
            env.extend(codex::forwarded(self)?);
        }
        let args = self.list("args")?;
        match bridged(&command, &args)? {
            Some(http) => Ok(Transport::Http(http)),
            None => Ok(Transport::Stdio(StdioTransport { command, args, env, cwd })),
        }
    }

    fn http(&self, url: String, kind: Option<&str>) -> Result<HttpTransport, String> {
        match kind {
            None | Some("http" | "streamable-http" | "streamableHttp" | "streamable_http") => {}
            Some("sse") => return Err("the old HTTP+SSE transport is not supported yet".to_owned()),
            Some(kind) => return Err(format!("unknown type `{kind}`")),
        }
        check_url(&url)?;
        let headers =
            if self.scope.form == Form::Codex { codex::headers(self)? } else { self.map("headers")? };
        Ok(HttpTransport { url, headers })
    }

    /// Relative directories are meant relative to the file.
    fn directory(&self, cwd: &str) -> String {
        if cwd.is_empty() {
            return String::new();
        }
        self.scope.origin.directory.join(cwd).to_string_lossy().into_owned()
    }

    pub(super) fn list(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(value) = self.fields.get(key) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| format!("`{key}` is not a list"))?;
        items.iter().map(|item| self.scalar(key, item)).collect()
    }

    pub(super) fn map(&self, key: &str) -> Result<BTreeMap<String, String>, String> {
        let Some(value) = self.fields.get(key) else { return Ok(BTreeMap::new()) };
        let items = value.as_object().ok_or_else(|| format!("`{key}` is not an object"))?;
        items.iter().map(|(name, item)| Ok((name.clone(), self.scalar(name, item)?))).collect()
    }

    fn scalar(&self, key: &str, value: &Value) -> Result<String, String> {
        match value {
            Value::String(text) => self.scope.expand(text),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(flag) => Ok(flag.to_string()),
            _ => Err(format!("`{key}` holds something that is not a string")),
        }
    }
}

/// `swarm stdio --url URL --header 'Name: value'` is a way to URL for hosts that only speak stdio,
/// and we write it into their files; here it is the URL itself.
fn bridged(command: &str, args: &[String]) -> Result<Option<HttpTransport>, String> {
    let program = command.rsplit('/').next().unwrap_or(command);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ("swarm", ["stdio", "--url", url, rest @ ..]) = (program, words.as_slice()) else {
        return Ok(None);
    };
    check_url(url)?;
    let mut headers = BTreeMap::new();
    for pair in rest.chunks(2) {
        let ["--header", header] = pair else { return Ok(None) };
        let Some((name, value)) = header.split_once(": ") else { return Ok(None) };
        headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(Some(HttpTransport { url: (*url).to_owned(), headers }))
}

/// Only what the edge can reach.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let parsed: http::Uri = url.parse().map_err(|error| format!("`{url}` is not a url: {error}"))?;
    match parsed.scheme_str() {
        Some("http") if parsed.host().is_some() => Ok(()),
        Some("https") => Err("https backends are not supported yet (http:// only)".to_owned()),
        _ => Err(format!("`{url}` is not an http:// url")),
    }
}
