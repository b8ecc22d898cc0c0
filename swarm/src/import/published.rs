//! Entries of the MCP registry API and `server.json`: remotes become urls, npm and PyPI packages
//! commands. Whatever an entry leaves open is taken from its defaults, secrets from the
//! environment; what is missing then is the reason why the entry is rejected.

use super::{Origin, fields::check_url};
use proto::registry::{BackendSpec, HttpTransport, StdioTransport, backend_spec::Transport};
use serde_json::Value;
use std::collections::BTreeMap;

const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// Name and backend of one entry; `None` for an older version of a server that is listed besides.
pub(super) fn entry(value: &Value, origin: &Origin<'_>) -> Option<(String, Result<BackendSpec, String>)> {
    let server = if value["server"].is_object() { &value["server"] } else { value };
    let official = &value["_meta"][OFFICIAL];
    if official["isLatest"] == false {
        return None;
    }
    let Some(full) = server["name"].as_str() else {
        return Some(("(no name)".to_owned(), Err("the entry has no name".to_owned())));
    };
    // `io.github.user/weather` is `weather` here.
    let name = full.rsplit('/').next().unwrap_or(full).to_owned();
    if let Err(error) = proto::ids::check_name(&name) {
        return Some((full.to_owned(), Err(error.to_string())));
    }
    if official["status"] == "deleted" {
        return Some((name, Err(format!("{full} is marked as deleted there"))));
    }
    let transport = transport(server, origin);
    let spec = transport.map(|t| BackendSpec { transport: Some(t), ..BackendSpec::default() });
    Some((name, spec))
}

/// The first remote or package that can be served, else why none can.
fn transport(server: &Value, origin: &Origin<'_>) -> Result<Transport, String> {
    let all = |key: &str| server[key].as_array().into_iter().flatten();
    let remotes = all("remotes").map(|given| remote(given, origin).map(Transport::Http));
    let packages = all("packages").map(|given| package(given, origin).map(Transport::Stdio));
    let mut reasons = Vec::new();
    for transport in remotes.chain(packages) {
        match transport {
            Ok(transport) => return Ok(transport),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        return Err("it has neither remotes nor packages".to_owned());
    }
    Err(reasons.join("; "))
}

fn remote(remote: &Value, origin: &Origin<'_>) -> Result<HttpTransport, String> {
    match remote["type"].as_str() {
        Some("streamable-http") => {}
        Some("sse") => return Err("the old HTTP+SSE transport is not supported yet".to_owned()),
        other => return Err(format!("unknown type of remote `{}`", other.unwrap_or_default())),
    }
    let url = remote["url"].as_str().ok_or("a remote has no url")?;
    let url = filled(url, &remote["variables"], origin)?;
    check_url(&url)?;
    Ok(HttpTransport { url, headers: pairs(&remote["headers"], "header", origin)? })
}

fn package(package: &Value, origin: &Origin<'_>) -> Result<StdioTransport, String> {
    let kind = package["registryType"].as_str().unwrap_or_default();
    let identifier = package["identifier"].as_str().unwrap_or_default();
    if !matches!(package["transport"]["type"].as_str(), None | Some("stdio")) {
        return Err(format!("package `{identifier}` does not speak stdio"));
    }
    let runtime = Runtime::of(kind).ok_or_else(|| {
        format!("package `{identifier}` is of type `{kind}`; npm and pypi are those that are run")
    })?;
    runtime.check(package, identifier)?;
    let mut args = arguments(&package["runtimeArguments"], origin)?;
    if let Some(yes) = runtime.yes.filter(|yes| !args.iter().any(|arg| arg == yes)) {
        args.insert(0, yes.to_owned());
    }
    args.push(match package["version"].as_str() {
        Some(version) => format!("{identifier}@{version}"),
        None => identifier.to_owned(),
    });
    args.extend(arguments(&package["packageArguments"], origin)?);
    let env = pairs(&package["environmentVariables"], "environment variable", origin)?;
    Ok(StdioTransport { command: runtime.command.to_owned(), args, env, cwd: String::new() })
}

/// What runs a kind of package.
struct Runtime {
    command: &'static str,
    /// The option that answers its question.
    yes: Option<&'static str>,
    /// Where it gets packages from unless it is told otherwise.
    home: &'static str,
}

impl Runtime {
    fn of(kind: &str) -> Option<Runtime> {
        match kind {
            "npm" => Some(Runtime { command: "npx", yes: Some("-y"), home: "https://registry.npmjs.org" }),
            "pypi" => Some(Runtime { command: "uvx", yes: None, home: "https://pypi.org" }),
            _ => None,
        }
    }

    /// The same name from another place is another package; one that looks like an option is none.
    fn check(&self, package: &Value, identifier: &str) -> Result<(), String> {
        let from = package["registryBaseUrl"].as_str().unwrap_or(self.home);
        if from.trim_end_matches('/') != self.home {
            return Err(format!("package `{identifier}` comes from {from}, not from {}", self.home));
        }
        let text = [identifier, package["version"].as_str().unwrap_or("0")];
        let odd =
            |text: &&str| text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace);
        if text.iter().any(odd) {
            return Err(format!("`{identifier}` is not the name and version of a package"));
        }
        let hint = package["runtimeHint"].as_str().unwrap_or(self.command);
        let for_it = package["runtimeArguments"].as_array().is_some_and(|args| !args.is_empty());
        if hint != self.command && for_it {
            return Err(format!("package `{identifier}` has arguments for `{hint}`, not `{}`", self.command));
        }
        Ok(())
    }
}

/// Arguments in their order; an optional one without a value is left out.
fn arguments(list: &Value, origin: &Origin<'_>) -> Result<Vec<String>, String> {
    let mut args = Vec::new();
    for argument in list.as_array().into_iter().flatten() {
        let flag = argument["name"].as_str().filter(|_| argument["type"] == "named");
        let label = flag.or_else(|| argument["valueHint"].as_str()).unwrap_or("value");
        let Some(value) = value_of(argument, "argument", label, origin)? else { continue };
        args.extend(flag.map(str::to_owned));
        args.push(value);
    }
    Ok(args)
}

/// Headers or environment variables by name.
fn pairs(list: &Value, what: &str, origin: &Origin<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for input in list.as_array().into_iter().flatten() {
        let name = input["name"].as_str().ok_or_else(|| format!("a {what} has no name"))?;
        let given = value_of(input, what, name, origin)?;
        pairs.extend(given.map(|value| (name.to_owned(), value)));
    }
    Ok(pairs)
}

/// The value of an input: fixed, else from this process's environment under its own name, else
/// the default, else none; none for a required one is the reason of a rejection.
fn value_of(input: &Value, what: &str, name: &str, origin: &Origin<'_>) -> Result<Option<String>, String> {
    if let Some(value) = input["value"].as_str() {
        return filled(value, &input["variables"], origin).map(Some);
    }
    let from_here = (origin.environment)(name).filter(|_| what == "environment variable");
    let value = from_here.or_else(|| input["default"].as_str().map(str::to_owned));
    if value.is_none() && input["isRequired"] == true {
        let meaning = input["description"].as_str().map(|text| format!(" ({text})")).unwrap_or_default();
        return Err(format!("it needs the {what} `{name}`{meaning}"));
    }
    Ok(value)
}

/// Replaces `{name}` where `variables` knows the name; other braces stay as they are.
fn filled(text: &str, variables: &Value, origin: &Origin<'_>) -> Result<String, String> {
    let mut text = text.to_owned();
    for (name, input) in variables.as_object().into_iter().flatten() {
        let place = format!("{{{name}}}");
        if !text.contains(&place) {
            continue;
        }
        // A variable of a variable is not part of the format.
        let fixed = input["value"].as_str().map(str::to_owned);
        let value =
            fixed.map_or_else(|| value_of(input, "variable", name, origin), |value| Ok(Some(value)))?;
        let value = value.ok_or_else(|| format!("it needs the variable `{name}`"))?;
        text = text.replace(&place, &value);
    }
    Ok(text)
}
