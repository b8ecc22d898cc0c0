//! `swarm members`, `swarm tools list`, `swarm sessions list`

use super::Api;
use crate::{
    api::{Member, Members, Sessions, Tools},
    cli::{OperatorArgs, SessionsCommand, ToolsCommand},
    error::CliError,
    output::{Show, Table, age, print, to_stderr},
};
use serde_json::Value;

/// Prints the nodes.
pub async fn members(args: &OperatorArgs) -> Result<(), CliError> {
    let members: Members = Api::new(args).get("members").await?;
    print(args.output, &members);
    Ok(())
}

impl Show for Members {
    fn table(&self, wide: bool) -> String {
        member_table(&self.members, wide)
    }
}

/// The nodes, one a row.
pub(super) fn member_table(members: &[Member], wide: bool) -> String {
    let none = || "-".to_owned();
    if !wide {
        let mut table = Table::new(["NODE", "STATE", "MCP", "ADMIN"]);
        for member in members {
            let mcp = member.mcp.clone().unwrap_or_else(none);
            let admin = member.admin.clone().unwrap_or_else(none);
            table.row([member.name.clone(), member.state.clone(), mcp, admin]);
        }
        return table.render();
    }
    let head =
        ["NODE", "STATE", "PHI", "GENERATION", "ZONE", "VERSION", "GOSSIP", "MCP", "ADMIN", "SERVICES"];
    let mut table = Table::new(head);
    for member in members {
        let services: Vec<&str> = member.services.keys().map(String::as_str).collect();
        table.row([
            member.name.clone(),
            member.state.clone(),
            format!("{:.1}", member.phi),
            member.generation.to_string(),
            member.zone.clone(),
            member.version.clone(),
            member.gossip.clone(),
            member.mcp.clone().unwrap_or_else(none),
            member.admin.clone().unwrap_or_else(none),
            services.join(","),
        ]);
    }
    table.render()
}

/// Prints the tools of all backends.
pub async fn tools(command: &ToolsCommand) -> Result<(), CliError> {
    let ToolsCommand::List(args) = command;
    let tools: Tools = Api::new(args).get("tools").await?;
    for (backend, reason) in &tools.stopped {
        to_stderr(&format!("warning: the tools of {backend} cannot be called: {reason}"));
    }
    print(args.output, &tools);
    Ok(())
}

impl Show for Tools {
    fn table(&self, wide: bool) -> String {
        let mut table = Table::new(["TOOL", "ARGUMENTS", "DESCRIPTION"]);
        for tool in &self.tools {
            let name = tool["name"].as_str().unwrap_or_default().to_owned();
            let text = tool["description"].as_str().unwrap_or_default();
            table.row([name, arguments(tool), summary(text, if wide { 200 } else { 60 })]);
        }
        table.render()
    }
}

/// Names of the arguments, optional ones in brackets.
fn arguments(tool: &Value) -> String {
    let schema = &tool["inputSchema"];
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let names =
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| {
            if required.contains(&name.as_str()) { name.clone() } else { format!("[{name}]") }
        });
    names.collect::<Vec<_>>().join(" ")
}

fn summary(text: &str, most: usize) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    if line.chars().count() <= most {
        return line.to_owned();
    }
    let cut: String = line.chars().take(most - 1).collect();
    format!("{cut}…")
}

/// Prints the open sessions.
pub async fn sessions(command: &SessionsCommand) -> Result<(), CliError> {
    let SessionsCommand::List(args) = command;
    let sessions: Sessions = Api::new(args).get("sessions").await?;
    for (edge, reason) in &sessions.missing {
        to_stderr(&format!("warning: edge {edge} did not answer: {reason}"));
    }
    print(args.output, &sessions);
    Ok(())
}

impl Show for Sessions {
    fn table(&self, _wide: bool) -> String {
        let head = ["SESSION", "ANCHOR", "EPOCH", "PROTOCOL", "CLIENT", "AGE", "STREAMS", "IN-FLIGHT"];
        let mut table = Table::new(head);
        for session in &self.sessions {
            table.row([
                session.id_hash.clone(),
                session.anchor.clone(),
                session.epoch.to_string(),
                session.protocol_version.clone(),
                session.client.clone(),
                age(session.age_ms),
                session.streams.to_string(),
                session.in_flight.to_string(),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn tools_show_their_arguments() {
        let tool = json!({"name": "time_now", "description": "\n  Now.\nMore", "inputSchema":
            {"properties": {"timezone": {}, "format": {}}, "required": ["timezone"]}});
        let shown = Tools { tools: vec![tool], stopped: BTreeMap::new() }.table(false);
        assert!(shown.ends_with("time_now  [format] timezone  Now."), "{shown}");
    }
}
