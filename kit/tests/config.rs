//! What the configuration loader promises to an operator.

#![allow(clippy::unwrap_used)]

use kit::config::{self, DataDir, NodeConfig, Section, ServiceFile, load};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command, time::Duration};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Edge {
    listen: String,
    sessions: u32,
    #[serde(with = "kit::config::duration")]
    grace: Duration,
    labels: BTreeMap<String, String>,
    limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    in_flight: u32,
}

impl Default for Edge {
    fn default() -> Self {
        let grace = Duration::from_secs(1);
        Self {
            listen: "default".into(),
            sessions: 1,
            grace,
            labels: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

impl Section for Edge {
    const NAME: &'static str = "edge";
}

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarm.toml");
    fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

fn error_of(text: &str) -> String {
    let file = file(text);
    let error = load::<ServiceFile<Edge>>(Some(&file.path), json!({})).unwrap_err().to_string();
    error.replace(&format!("{}/", file.path.parent().unwrap().display()), "")
}

#[test]
fn an_unknown_key_is_told_with_file_line_column_table_and_the_nearest_key() {
    assert_eq!(
        error_of("[edge]\nsessions = 2\nlisen = \"x\"\n"),
        "swarm.toml:3:1: unknown key `lisen` in [edge]; did you mean `listen`?"
    );
    assert_eq!(
        error_of("[edge.limits]\nin_fligt = 2\n"),
        "swarm.toml:2:1: unknown key `in_fligt` in [edge.limits]; did you mean `in_flight`?"
    );
    assert_eq!(error_of("\n[egde]\n"), "swarm.toml:2:2: unknown key `egde`; did you mean `edge`?");
    assert_eq!(
        error_of("[node]\n  gprc = \"127.0.0.1:1\"\n"),
        "swarm.toml:2:3: unknown key `gprc` in [node]; did you mean `grpc`?"
    );
    assert_eq!(
        error_of("[edge]\ncompletely_different = 1\n"),
        "swarm.toml:2:1: unknown key `completely_different` in [edge]"
    );
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    let error = error_of("[edge]\nsessions = \"many\"\n");
    assert!(error.starts_with("swarm.toml:2:12: invalid type: string \"many\""), "{error}");
    let error = error_of("[edge]\ngrace = \"2 weeks\"\n");
    assert!(error.starts_with("swarm.toml:2:9: duration \"2 weeks\" is not"), "{error}");
    let error = error_of("[edge\n");
    assert!(error.starts_with("swarm.toml:1:"), "{error}");
    let error = error_of("[node]\ngrpc = \"nowhere\"\n");
    assert!(error.starts_with("swarm.toml:2:8: invalid socket address"), "{error}");
}

#[test]
fn a_missing_file_is_an_error_and_names_it() {
    let error = load::<ServiceFile<Edge>>(Some("/nowhere/swarm.toml".as_ref()), json!({})).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/swarm.toml: No such file"), "{error}");
}

#[test]
fn sections_of_other_services_are_skipped_and_free_maps_are_free() {
    let file = file("[session]\nrf = 3\n[edge]\nlabels = { any = \"key\" }\n[node]\nname = \"n7\"\n");
    let loaded: ServiceFile<Edge> = load(Some(&file.path), json!({})).unwrap();
    assert_eq!(loaded.node.name, "n7");
    assert_eq!(loaded.service.labels["any"], "key");
    assert_eq!(loaded.service.sessions, 1);
}

#[test]
fn flags_win_over_the_file_and_unset_flags_do_not() {
    let file = file("[node]\nname = \"file\"\nzone = \"file\"\ndata = \":memory:\"\n");
    let flags = json!({"node": {"name": "flag", "zone": null, "log": {"filter": null}}});
    let loaded: ServiceFile<Edge> = load(Some(&file.path), flags).unwrap();
    assert_eq!((loaded.node.name.as_str(), loaded.node.zone.as_str()), ("flag", "file"));
    assert_eq!(loaded.node.data, DataDir::Memory);
    assert_eq!(loaded.node.log, NodeConfig::default().log);
}

/// Runs [`child_loads`] in a process of its own, for the environment belongs to a process.
fn child(text: &str, variables: &[(&str, &str)]) -> String {
    let file = file(text);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child_loads", "--nocapture", "--quiet"]);
    command.env("KIT_TEST_FILE", &file.path).envs(variables.iter().copied());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = output.lines().find_map(|line| line.split_once("LOADED ")).map(|(_, line)| line);
    line.unwrap_or(&output).to_owned()
}

#[test]
fn child_loads() {
    let Some(path) = env::var_os("KIT_TEST_FILE") else {
        return;
    };
    let flags = json!({"node": {"cluster": "flag"}});
    match load::<ServiceFile<Edge>>(Some(path.as_ref()), flags) {
        Ok(ServiceFile { node, service }) => println!(
            "LOADED {} {} {} {} {:?} {}",
            node.name, node.zone, node.cluster, service.sessions, service.grace, service.limits.in_flight
        ),
        Err(error) => println!("LOADED error {error}"),
    }
}

#[test]
fn the_environment_wins_over_the_file_and_loses_to_flags() {
    let text = "[node]\nname = \"file\"\nzone = \"file\"\ncluster = \"file\"\n[edge]\nsessions = 2\n";
    let loaded = child(
        text,
        &[
            ("SWARM__NODE__NAME", "env"),
            ("SWARM__NODE__CLUSTER", "env"),
            ("SWARM__EDGE__SESSIONS", "7"),
            ("SWARM__EDGE__GRACE", "250ms"),
            ("SWARM__EDGE__LIMITS__IN_FLIGHT", "9"),
            ("SWARM_SEED", "not ours"),
        ],
    );
    assert_eq!(loaded, "env file flag 7 250ms 9");
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let error = child("", &[("SWARM__EDGE__SESSIONS", "many")]);
    assert!(error.starts_with("error SWARM__EDGE__SESSIONS: invalid type"), "{error}");
    let error = child("", &[("SWARM__EDGE__SESIONS", "1")]);
    assert_eq!(
        error,
        "error SWARM__EDGE__SESIONS: unknown key `sesions` in [edge]; did you mean `sessions`?"
    );
    let error = child("", &[("SWARM__EGDE__SESSIONS", "1")]);
    assert_eq!(error, "error SWARM__EGDE__SESSIONS: unknown key `egde`; did you mean `edge`?");
}

#[test]
fn lists_come_from_the_environment_and_a_number_may_be_a_name() {
    let list = child("", &[("SWARM__NODE__JOIN", "[\"a:1\", \"b:2\"]"), ("SWARM__NODE__NAME", "n")]);
    assert_eq!(list, "n default flag 1 1s 0");
    assert_eq!(child("", &[("SWARM__NODE__NAME", "1")]), "1 default flag 1 1s 0");
}

#[test]
fn the_hash_changes_with_the_configuration_only() {
    let (a, b) = (NodeConfig::default(), NodeConfig { expect: 3, ..NodeConfig::default() });
    assert_eq!(config::sha256(&a), config::sha256(&a.clone()));
    assert_ne!(config::sha256(&a), config::sha256(&b));
    assert_eq!(config::sha256(&a).len(), 64);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let node = |change: fn(&mut NodeConfig)| {
        let mut node = NodeConfig::for_test("n1");
        change(&mut node);
        node.validate().map_err(|error| error.to_string())
    };
    assert_eq!(node(|_| {}), Ok(()));
    assert!(node(|n| n.name = "../n1".into()).unwrap_err().contains("node.name = \"../n1\""));
    let everywhere = node(|n| n.grpc.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into()));
    assert!(everywhere.unwrap_err().contains("set node.advertise"));
    assert!(node(|n| n.expect = 2).unwrap_err().contains("must be 1, 3 or 5"));
    assert!(node(|n| n.cluster = "a.b".into()).unwrap_err().contains("one token"));
    assert!(node(|n| n.profile = "fast".into()).unwrap_err().contains("default, seed or wan"));
}
