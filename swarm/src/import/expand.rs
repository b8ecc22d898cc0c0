//! Variables in the values of an imported file: `${NAME}`, `${NAME:-default}`, `${env:NAME}`,
//! `${workspaceFolder}`, `${userHome}`, and `${input:...}` where its definition has a default.

use super::{Form, Origin};
use serde_json::Value;
use std::path::Path;

/// What the values of one file are read with.
pub(super) struct Scope<'a> {
    pub(super) origin: &'a Origin<'a>,
    pub(super) form: Form,
    inputs: Vec<Value>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(origin: &'a Origin<'a>, inputs: Vec<Value>, form: Form) -> Scope<'a> {
        Scope { origin, form, inputs }
    }

    /// Replaces every variable of `text`, or says which one cannot be.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, tail)) = after.split_once('}') else { break };
            expanded.push_str(before);
            expanded.push_str(&self.variable(name)?);
            rest = tail;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        if let Some(input) = name.strip_prefix("input:") {
            return self.input(input);
        }
        match name {
            "workspaceFolder" | "workspaceFolderAbsolute" => Ok(workspace(&self.origin.directory)),
            "userHome" => self.environment("HOME"),
            "pathSeparator" | "/" => Ok(std::path::MAIN_SEPARATOR.to_string()),
            _ => self.environment(name.strip_prefix("env:").unwrap_or(name)),
        }
    }

    /// A secret has no default worth using, whatever the file says.
    fn input(&self, id: &str) -> Result<String, String> {
        let input = self.inputs.iter().find(|input| input["id"] == id);
        let default = input.filter(|input| input["password"] != true).and_then(|i| i["default"].as_str());
        if let Some(default) = default {
            return Ok(default.to_owned());
        }
        let what = input.and_then(|input| input["description"].as_str());
        let what = what.map(|what| format!(" ({what})")).unwrap_or_default();
        Err(format!("it needs the input `{id}`{what}, which only an editor can ask for"))
    }

    /// The value of an environment variable, or its default after `:-`.
    pub(super) fn environment(&self, name: &str) -> Result<String, String> {
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (name, None),
        };
        (self.origin.environment)(name)
            .or(default)
            .ok_or_else(|| format!("the environment variable `{name}` is not set"))
    }
}

/// Editors keep their file in a folder of the workspace, `.mcp.json` lies at its root.
fn workspace(directory: &Path) -> String {
    let hidden = directory.ends_with(".vscode") || directory.ends_with(".cursor");
    let root = if hidden { directory.parent().unwrap_or(directory) } else { directory };
    root.to_string_lossy().into_owned()
}
