//! The MCP registry API on the admin port: shapes, pages, errors, and who may read it.

mod common;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::{Node, backend, eventually, named};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proto::registry::Kind;
use serde_json::{Value, json};
use std::time::Duration;
use swarm::client::Http;
use tempfile::TempDir;

const SCHEMA: &str = include_str!("data/registry-api-v0.1.schema.json");
/// A file with the schema as it is published: entries are held against it too when it is given.
const PUBLISHED: &str = "SWARM_SERVER_SCHEMA";

/// A node with the backends `names`, none of which starts.
fn node(folder: &TempDir, names: &[&str], more: &[&str]) -> Node {
    let servers = names.iter().map(|name| ((*name).to_owned(), json!({"command": "false"})));
    let servers: serde_json::Map<String, Value> = servers.collect();
    let file = folder.path().join("mcp.json");
    std::fs::write(&file, json!({ "mcpServers": servers }).to_string()).expect("written");
    let import = ["--import", file.to_str().expect("utf-8")];
    Node::start("n1", &folder.path().join("n1"), &[&import, more].concat())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

fn ask(method: Method, url: &str) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let deadline = Duration::from_secs(20);
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://editor.example"));
        let reply = Http::unpooled().send(method, url, headers, Bytes::new(), deadline).await;
        let reply = reply.expect("an answer");
        let (status, headers) = (reply.status, reply.headers.clone());
        Answer { status, headers, body: reply.whole(deadline).await.expect("a body") }
    })
}

fn get(node: &Node, path: &str) -> Answer {
    ask(Method::GET, &format!("{}/v0.1/{path}", node.admin()))
}

fn fits(definition: &str, value: &Value) {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.enable_format_assertions();
    let schema = serde_json::from_str(SCHEMA).expect("a schema");
    compiler.add_resource("urn:swarm:registry-api-v0.1", schema).expect("added");
    let place = format!("urn:swarm:registry-api-v0.1#/$defs/{definition}");
    let index = compiler.compile(&place, &mut schemas).expect("it compiles");
    schemas.validate(value, index).unwrap_or_else(|error| panic!("{error:#}\n{value:#}"));
}

/// Against `server.json`'s schema as it is published, where a copy is at hand.
fn fits_published(server: &Value) {
    let Some(file) = std::env::var_os(PUBLISHED) else { return };
    let text = std::fs::read_to_string(&file).expect("the published schema");
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("urn:published", serde_json::from_str(&text).expect("json")).expect("added");
    let index = compiler.compile("urn:published", &mut schemas).expect("it compiles");
    schemas.validate(server, index).unwrap_or_else(|error| panic!("{error:#}\n{server:#}"));
}

#[test]
fn entries_keep_to_the_schema_and_point_at_the_edge() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "n".repeat(128);
    let node = node(&folder, &["git", "time.v2_x", &long], &[]);
    let list = get(&node, "servers");
    assert_eq!(list.status, StatusCode::OK);
    assert_eq!(list.headers[header::CONTENT_TYPE], "application/json");
    let list = list.json();
    fits("list", &list);
    let names: Vec<&str> = list["servers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["server"]["name"].as_str())
        .collect();
    assert_eq!(names, ["local.swarm/git", &format!("local.swarm/{long}"), "local.swarm/time.v2_x"]);
    for entry in list["servers"].as_array().expect("a list") {
        fits_published(&entry["server"]);
        let name = entry["server"]["name"].as_str().and_then(|name| name.strip_prefix("local.swarm/"));
        let url = format!("{}/{}", node.fact("mcp"), name.expect("our prefix"));
        assert_eq!(entry["server"]["remotes"][0]["url"], url.as_str());
    }
    assert!(!list.to_string().contains("false\""), "a command is shown: {list}");
}

#[test]
fn a_version_is_found_by_its_number_and_as_the_latest() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, &["git"], &[]);
    let versions = get(&node, "servers/local.swarm%2Fgit/versions").json();
    fits("list", &versions);
    let entry = &versions["servers"][0];
    let version = entry["server"]["version"].as_str().expect("a version");
    for wanted in [version, "latest"] {
        let one = get(&node, &format!("servers/local.swarm%2Fgit/versions/{wanted}"));
        assert_eq!(one.status, StatusCode::OK);
        fits("entry", &one.json());
        assert_eq!(one.json(), *entry);
    }
    assert_eq!(entry["_meta"]["io.modelcontextprotocol.registry/official"]["isLatest"], true);
}

#[test]
fn pages_are_followed_by_their_cursors_to_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let names: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
    let node = node(&folder, &names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let mut seen = Vec::new();
    let mut path = "servers?limit=3&version=latest".to_owned();
    loop {
        let page = get(&node, &path).json();
        fits("list", &page);
        let servers = page["servers"].as_array().expect("a list");
        seen.extend(servers.iter().filter_map(|entry| entry["server"]["title"].as_str().map(str::to_owned)));
        let Some(cursor) = page["metadata"]["nextCursor"].as_str() else { break };
        path = format!("servers?limit=3&version=latest&cursor={cursor}");
    }
    assert_eq!(seen, names);
    let found = get(&node, "servers?search=S4").json();
    assert_eq!(found["metadata"]["count"], 1);
    assert_eq!(get(&node, "servers?updated_since=2100-01-01T00:00:00Z").json()["metadata"]["count"], 0);
    assert_eq!(
        get(&node, "servers?updated_since=2020-01-01T00:00:00%2B02:00").json()["metadata"]["count"],
        7
    );
}

#[test]
fn a_registry_larger_than_any_page_is_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    // No edge: it would look after each of the backends.
    let file = folder.path().join("swarm.toml");
    std::fs::write(&file, "[catalog]\npublic_url = \"http://edge/mcp\"\n").expect("written");
    let gossip = Node::spawn_as("gossip", "n1", &folder.path().join("gossip"), &[]).ready();
    let known = ["--gossip-endpoint", gossip.fact("grpc"), "--config", file.to_str().expect("utf-8")];
    let node = Node::spawn_as("registry", "n1", &folder.path().join("registry"), &known).ready();
    eventually("the registry is known", || (get(&node, "servers").status == StatusCode::OK).then_some(()));
    let name = |n: usize| format!("s{n:03}");
    node.register((0..620).map(|n| backend(&name(n), "", &[])).collect());
    // Names that are no backends stand between and behind them.
    node.register(["a", "s005x", "t"].map(|name| named(name, Kind::Agent, &[])).to_vec());
    let all = |query: &str| {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&node, &format!("servers?{query}{cursor}")).json();
            fits("list", &page);
            let servers = page["servers"].as_array().expect("a list").iter();
            seen.extend(servers.filter_map(|entry| Some(entry["server"]["title"].as_str()?.to_owned())));
            match page["metadata"]["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return seen,
            }
        }
    };
    assert_eq!(all("limit=100"), (0..620).map(name).collect::<Vec<_>>());
    let with_9: Vec<String> = (0..620).map(name).filter(|name| name.contains('9')).collect();
    assert_eq!(all("limit=7&search=9"), with_9);
    assert_eq!(all("limit=2&search=s61"), (610..620).map(name).collect::<Vec<_>>());
    assert!(all("version=9.9.9").is_empty() && all("updated_since=2100-01-01T00:00:00Z").is_empty());

    // Cursors of earlier versions, and ones whose place the registry does not know, lead on by name.
    for place in ["1s499", "2s499/", "2s499/00ff"] {
        let cursor = URL_SAFE_NO_PAD.encode(place);
        let page = get(&node, &format!("servers?limit=3&cursor={cursor}")).json();
        let titles = page["servers"].as_array().expect("a list").iter();
        let titles: Vec<&str> = titles.filter_map(|entry| entry["server"]["title"].as_str()).collect();
        assert_eq!(titles, ["s500", "s501", "s502"], "{place}");
    }
}

#[test]
fn every_wrong_request_has_its_own_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, &["git"], &[]);
    let refused = [
        ("servers?limit=0", 400, "invalid limit \"0\""),
        ("servers?limit=1000", 400, "invalid limit \"1000\""),
        ("servers?limit=2&limit=3", 400, "invalid query: "),
        ("servers?cursor=bm9uc2Vuc2U", 400, "invalid cursor: "),
        ("servers?updated_since=monday", 400, "invalid updated_since \"monday\""),
        ("servers/local.swarm%2Fnope/versions", 404, "no server is named \"local.swarm/nope\""),
        ("servers/com.example%2Fgit/versions/latest", 404, "names here are local.swarm/<name>"),
        ("servers/local.swarm%2Fgit/versions/9.9.9", 404, "has no version \"9.9.9\"; the latest, 1.0."),
        ("servers/local.swarm/git/versions", 404, "a slash within a name is written as %2F"),
        ("nothing", 404, "no /v0.1/nothing"),
    ];
    for (path, status, words) in refused {
        let answer = get(&node, path);
        assert_eq!(answer.status.as_u16(), status, "{path}");
        fits("error", &answer.json());
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(words), "{path}: {error}");
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{path}");
    }
}

#[test]
fn pages_of_every_origin_may_read_and_nobody_may_publish() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder, &["git"], &[]);
    let base = format!("{}/v0.1", node.admin());
    for path in ["servers", "servers/local.swarm%2Fgit/versions/latest"] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = ask(method.clone(), &format!("{base}/{path}"));
            assert!(answer.status.is_success(), "{method} {path}");
            assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, OPTIONS");
            let headers = &answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS];
            assert_eq!(headers, "Authorization, Content-Type");
        }
    }
    let writes = [
        (Method::POST, "publish"),
        (Method::PUT, "servers/local.swarm%2Fgit/versions/1.0.0"),
        (Method::DELETE, "servers/local.swarm%2Fgit/versions/latest"),
    ];
    for (method, path) in writes {
        let answer = ask(method, &format!("{base}/{path}"));
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{path}");
        fits("error", &answer.json());
    }
    let rows = node.json(&["registry", "list"]).expect("json");
    assert_eq!(rows["registrations"].as_array().map(Vec::len), Some(1), "{rows}");
}

#[test]
fn prefix_and_public_url_are_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("swarm.toml");
    let text = "[catalog]\nprefix = \"com.example.tools\"\npublic_url = \"https://mcp.example.com/mcp/\"\n";
    std::fs::write(&file, text).expect("written");
    let node = node(&folder, &["git"], &["--config", file.to_str().expect("utf-8")]);
    let list = get(&node, "servers").json();
    fits("list", &list);
    let server = &list["servers"][0]["server"];
    assert_eq!(server["name"], "com.example.tools/git");
    assert_eq!(server["remotes"][0]["url"], "https://mcp.example.com/mcp/git");

    std::fs::write(&file, "[catalog]\nprefix = \"a/b\"\n").expect("written");
    let output = common::run(&["config", "validate", "--config", file.to_str().expect("utf-8")]);
    assert_eq!(output.status.code(), Some(78));
    let words = common::stderr(&output);
    assert!(words.contains("catalog.prefix = \"a/b\": must be 1 to 71 characters"), "{words}");
}
