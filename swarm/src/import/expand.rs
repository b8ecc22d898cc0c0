//! Variables in the values of an imported file: `${NAME}`, `${NAME:-default}`, `${env:NAME}`,
//! `${workspaceFolder}`, `${userHome}`. `${input:...}` only an editor can answer.

use super::Origin;
use std::path::Path;

/// Replaces every variable of `text`, or says which one cannot be.
pub(super) fn expand(text: &str, origin: &Origin<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        expanded.push_str(before);
        expanded.push_str(&variable(name, origin)?);
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn variable(name: &str, origin: &Origin<'_>) -> Result<String, String> {
    if let Some(input) = name.strip_prefix("input:") {
        return Err(format!("it needs the input `{input}`, which only an editor can ask for"));
    }
    match name {
        "workspaceFolder" | "workspaceFolderAbsolute" => Ok(workspace(&origin.directory)),
        "userHome" => environment("HOME", origin),
        "pathSeparator" | "/" => Ok(std::path::MAIN_SEPARATOR.to_string()),
        _ => environment(name.strip_prefix("env:").unwrap_or(name), origin),
    }
}

fn environment(name: &str, origin: &Origin<'_>) -> Result<String, String> {
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (name, None),
    };
    (origin.environment)(name)
        .or(default)
        .ok_or_else(|| format!("the environment variable `{name}` is not set"))
}

/// Editors keep their file in a folder of the workspace, `.mcp.json` lies at its root.
fn workspace(directory: &Path) -> String {
    let hidden = directory.ends_with(".vscode") || directory.ends_with(".cursor");
    let root = if hidden { directory.parent().unwrap_or(directory) } else { directory };
    root.to_string_lossy().into_owned()
}
