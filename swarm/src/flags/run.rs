//! The commands: they ask the admin API of one node, and of the others that it knows.

use super::{
    cli::{Because, FlagsCommand, ReachArgs},
    wire::{ChangeRequest, Changed, Flag, FlagList, History, KillRequest},
};
use crate::{
    api::Members,
    cli::OperatorArgs,
    error::{CliError, Failure},
    ops::Api,
    output::{Show, Table, print, to_stderr},
};
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::Path};

/// Runs one of them.
pub async fn run(command: &FlagsCommand) -> Result<(), CliError> {
    match command {
        FlagsCommand::List(reach) => list(reach).await,
        FlagsCommand::Get { key, reach } => get(key, reach).await,
        FlagsCommand::Set { key, variant, percent, tenant, cascade, because, reach } => {
            let variant = (variant != "default").then(|| variant.clone());
            let request = ChangeRequest {
                variant,
                percent: *percent,
                tenants: tenant.clone(),
                cascade: *cascade,
                ..of(because)
            };
            change(&format!("flags/{key}"), &request, reach).await
        }
        FlagsCommand::Kill { key, lift, because, reach } => kill(key, *lift, because, reach).await,
        FlagsCommand::History { key, limit, operator } => history(key.as_deref(), *limit, operator).await,
        FlagsCommand::Apply { file, because, reach } => apply(file, because, reach).await,
    }
}

fn of(because: &Because) -> ChangeRequest {
    let Because { reason, actor, expected_revision } = because.clone();
    ChangeRequest { reason, actor, expected_revision, ..ChangeRequest::default() }
}

async fn list(reach: &ReachArgs) -> Result<(), CliError> {
    let operator = &reach.operator;
    let list: FlagList = Api::new(operator).get("flags").await?;
    let mut nodes = BTreeMap::from([(list.node.clone(), NodeFlags::of(&list))]);
    for (name, answer) in asked_too::<FlagList>(reach, "flags", None).await {
        nodes.insert(
            name,
            answer.map_or_else(|error| NodeFlags::missing(&error), |list| NodeFlags::of(&list)),
        );
    }
    for (node, flags) in &nodes {
        for words in flags.problem.iter().chain(&flags.warnings).chain(&flags.unreached) {
            to_stderr(&format!("warning: {node}: {words}"));
        }
        if flags.unreached.is_none() && flags.settings != NodeFlags::of(&list).settings {
            to_stderr(&format!("warning: {node}: its flags differ from those of {}", list.node));
        }
    }
    print(operator.output, &Listed { list, nodes });
    Ok(())
}

async fn get(key: &str, reach: &ReachArgs) -> Result<(), CliError> {
    let flag: Flag = Api::new(&reach.operator).get(&format!("flags/{key}")).await?;
    print(reach.operator.output, &flag);
    Ok(())
}

/// `tool-calls` is short for the switch `kill.tool-calls`.
async fn kill(key: &str, lift: bool, because: &Because, reach: &ReachArgs) -> Result<(), CliError> {
    let Because { reason, actor, expected_revision } = because.clone();
    let request = KillRequest { lift, reason, actor, expected_revision };
    let known: Result<Flag, _> = Api::new(&reach.operator).get(&format!("flags/{key}")).await;
    let key = match known {
        Err(error) if error.failure == Failure::NotFound && !key.starts_with("kill.") => {
            format!("kill.{key}")
        }
        Err(error) if error.failure != Failure::NotFound => return Err(error),
        _ => key.to_owned(),
    };
    change(&format!("flags/{key}/kill"), &request, reach).await
}

async fn history(key: Option<&str>, limit: usize, operator: &OperatorArgs) -> Result<(), CliError> {
    let key = key.map(|key| format!("&key={key}")).unwrap_or_default();
    let history: History = Api::new(operator).get(&format!("flag-history?limit={limit}{key}")).await?;
    print(operator.output, &history);
    Ok(())
}

/// Sets what differs, flag by flag; stops at the first that is refused.
async fn apply(file: &Path, because: &Because, reach: &ReachArgs) -> Result<(), CliError> {
    let wanted = read_preset(file)?;
    let list: FlagList = Api::new(&reach.operator).get("flags").await?;
    for (key, variant) in wanted {
        let found = list.flags.iter().find(|flag| flag.key == key);
        let nodes_agree = found.is_some_and(|flag| flag.setting == variant && flag.stage != "live");
        if nodes_agree {
            to_stderr(&format!("= {key} is {variant} in this build"));
            continue;
        }
        // Each change makes a revision, so that only the first can be told what to expect.
        let request = ChangeRequest { variant: Some(variant), expected_revision: None, ..of(because) };
        change(&format!("flags/{key}"), &request, reach).await?;
    }
    Ok(())
}

fn read_preset(file: &Path) -> Result<Vec<(String, String)>, CliError> {
    let wrong = |words: String| CliError::new(Failure::Failed, format!("{}: {words}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let preset: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let flags = preset.get("flags").and_then(toml::Value::as_table);
    let flags = flags.ok_or_else(|| wrong("no [flags]".into()))?;
    let pair = |(key, value): (&String, &toml::Value)| {
        let variant = value.as_str().ok_or_else(|| wrong(format!("{key} is not a variant's name")))?;
        Ok((key.clone(), variant.to_owned()))
    };
    flags.iter().map(pair).collect()
}

/// The asked node first: what it refuses is tried nowhere else. Exit 1 when another node did not follow.
async fn change<T: Serialize>(path: &str, request: &T, reach: &ReachArgs) -> Result<(), CliError> {
    let body = serde_json::to_vec(request).map_err(anyhow::Error::from)?;
    let api = Api::new(&reach.operator);
    let mut done = Done { nodes: vec![api.post(path, body.clone().into()).await?], failed: BTreeMap::new() };
    for (name, answer) in asked_too::<Changed>(reach, path, Some(&body)).await {
        match answer {
            Ok(changed) => done.nodes.push(changed),
            Err(error) => {
                done.failed.insert(name, error.message);
            }
        }
    }
    for (name, why) in &done.failed {
        to_stderr(&format!("error: {name} did not follow: {why}"));
    }
    print(reach.operator.output, &done);
    if done.failed.is_empty() { Ok(()) } else { Err(CliError::told(Failure::Failed)) }
}

/// Asks every other node that the first one knows, all at once.
async fn asked_too<T: DeserializeOwned>(
    reach: &ReachArgs,
    path: &str,
    body: Option<&[u8]>,
) -> Vec<(String, Result<T, CliError>)> {
    if reach.single_address {
        return Vec::new();
    }
    // A service that runs alone knows no members: it is the only one that can be asked.
    let Ok(Members { node, members }) = Api::new(&reach.operator).get::<Members>("members").await else {
        return Vec::new();
    };
    let others = members.into_iter().filter(|member| member.name != node && member.state != "left");
    let asked = others.map(|member| async move {
        let answer = match (&member.admin, member.state.as_str()) {
            (_, "dead") => {
                Err(CliError::new(Failure::Unreachable, "it is dead; it has its own flags when it is back"))
            }
            (None, _) => Err(CliError::new(Failure::Unreachable, "its admin address is not known")),
            (Some(admin), _) => {
                let api = Api::at(admin, reach.operator.timeout);
                match body {
                    Some(body) => api.post(path, body.to_vec().into()).await,
                    None => api.get(path).await,
                }
            }
        };
        (member.name, answer)
    });
    join_all(asked).await
}

#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    list: FlagList,
    nodes: BTreeMap<String, NodeFlags>,
}

/// Another node's flags, in short.
#[derive(Debug, Serialize)]
struct NodeFlags {
    revision: Option<u64>,
    problem: Option<String>,
    warnings: Vec<String>,
    unreached: Option<String>,
    #[serde(skip)]
    settings: Vec<(String, String)>,
}

impl NodeFlags {
    fn of(list: &FlagList) -> Self {
        let settings = list.flags.iter().map(|flag| (flag.key.clone(), flag.setting.clone())).collect();
        let (problem, warnings) = (list.problem.clone(), list.warnings.clone());
        NodeFlags { revision: Some(list.revision), problem, warnings, unreached: None, settings }
    }

    fn missing(error: &CliError) -> Self {
        let unreached = Some(error.message.clone());
        NodeFlags { revision: None, problem: None, warnings: Vec::new(), unreached, settings: Vec::new() }
    }
}

#[derive(Debug, Serialize)]
struct Done {
    nodes: Vec<Changed>,
    failed: BTreeMap<String, String>,
}

impl Show for Listed {
    fn table(&self, wide: bool) -> String {
        let mut table = Table::new(["FLAG", "SETTING", "SOURCE", "STAGE", "VARIANTS", "REQUIRES"]);
        for flag in &self.list.flags {
            let requires = if wide { flag.requires.clone() } else { flag.requires.replace("=on", "") };
            table.row([
                flag.key.clone(),
                flag.setting.clone(),
                flag.source.clone(),
                flag.stage.clone(),
                flag.variants.join("|"),
                requires,
            ]);
        }
        let revision = |(node, flags): (&String, &NodeFlags)| {
            let revision = flags.revision.map_or("?".to_owned(), |revision| revision.to_string());
            format!("{node} {revision}")
        };
        let revisions: Vec<_> = self.nodes.iter().map(revision).collect();
        format!("{}\n\nrevision: {}", table.render(), revisions.join(", "))
    }
}

impl Show for Flag {
    fn table(&self, _wide: bool) -> String {
        let stage = match self.stage.as_str() {
            "live" => "live: it can be set".to_owned(),
            stage => format!("{stage}: it cannot be set in this build"),
        };
        let rows = [
            ("flag", self.key.clone()),
            ("setting", self.setting.clone()),
            ("source", self.source.clone()),
            ("stage", stage),
            ("variants", self.variants.join("|")),
            ("default", self.default.clone()),
            ("requires", self.requires.clone()),
            ("targeting", self.targeting.clone()),
            ("what", self.description.clone()),
        ];
        let lines = rows.into_iter().filter(|(_, value)| !value.is_empty());
        lines.map(|(name, value)| format!("{name:<10} {value}")).collect::<Vec<_>>().join("\n")
    }
}

impl Show for Done {
    fn table(&self, _wide: bool) -> String {
        let mut table = Table::new(["NODE", "REVISION", "FLAG", "WAS", "IS"]);
        for Changed { node, revision, changed } in &self.nodes {
            for change in changed {
                table.row([
                    node.clone(),
                    revision.to_string(),
                    change.key.clone(),
                    change.old.clone(),
                    change.new.clone(),
                ]);
            }
            if changed.is_empty() {
                table.row([
                    node.clone(),
                    revision.to_string(),
                    "-".into(),
                    String::new(),
                    "unchanged".into(),
                ]);
            }
        }
        table.render()
    }
}

impl Show for History {
    fn table(&self, _wide: bool) -> String {
        let mut table = Table::new(["TIME", "REVISION", "FLAG", "WAS", "IS", "WHO", "WHY"]);
        for record in &self.records {
            let time = i64::try_from(record.time).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            table.row([
                time.map_or_else(|| record.time.to_string(), |time| time.to_string()),
                record.revision.to_string(),
                record.key.clone(),
                record.old.clone(),
                record.new.clone(),
                record.actor.clone(),
                record.reason.clone(),
            ]);
        }
        table.render()
    }
}
