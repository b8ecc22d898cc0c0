//! From a registration to an entry of the API. Pure.

use super::Config;
use jiff::Timestamp;
use proto::registry::Registration;
use serde::Serialize;

/// The schema that every entry keeps to.
pub const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json";
/// Where the API puts what the registry itself says of an entry.
pub const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// Longest title and description, in characters.
const TEXT_MAX: usize = 100;

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerList {
    /// In name order.
    pub servers: Vec<ServerResponse>,
    /// About the page.
    pub metadata: Metadata,
}

/// About a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// For the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Entries on this page.
    pub count: usize,
}

/// One version of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerResponse {
    /// `server.json`.
    pub server: Server,
    /// What the registry says of it.
    #[serde(rename = "_meta")]
    pub meta: Meta,
}

/// `server.json`, the part that we have something to say in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// [`SCHEMA`].
    #[serde(rename = "$schema")]
    pub schema: &'static str,
    /// `<prefix>/<name>`.
    pub name: String,
    /// The name in our registry.
    pub title: String,
    /// For people.
    pub description: String,
    /// See [`version`].
    pub version: String,
    /// Our edge.
    pub remotes: [Remote; 1],
}

/// Where a client connects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remote {
    /// "streamable-http".
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `<edge>/<name>`.
    pub url: String,
}

/// Metadata by the namespace of who gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Meta {
    /// What every registry gives.
    #[serde(rename = "io.modelcontextprotocol.registry/official")]
    pub official: Official,
}

/// What every registry gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Official {
    /// "active": what is taken out of the registry is gone from here.
    pub status: &'static str,
    /// When this version was registered, RFC 3339.
    pub published_at: String,
    /// The same: a version does not change.
    pub updated_at: String,
    /// True: older versions are not kept.
    pub is_latest: bool,
}

/// What entries are made with.
pub(super) struct Maker<'a> {
    pub(super) config: &'a Config,
    /// URL of the edge, without a slash at its end.
    pub(super) edge: &'a str,
}

impl Maker<'_> {
    pub(super) fn entry(&self, registration: &Registration) -> ServerResponse {
        let name = &registration.name;
        let at = registered_at(registration).to_string();
        ServerResponse {
            server: Server {
                schema: SCHEMA,
                name: full_name(self.config, name),
                title: shortened(name.clone()),
                description: shortened(format!("MCP server {name}, served by swarm")),
                version: version(registration),
                remotes: [Remote { kind: "streamable-http", url: format!("{}/{name}", self.edge) }],
            },
            meta: Meta {
                official: Official {
                    status: "active",
                    published_at: at.clone(),
                    updated_at: at,
                    is_latest: true,
                },
            },
        }
    }
}

/// `time` is listed as `local.swarm/time`.
pub(super) fn full_name(config: &Config, name: &str) -> String {
    format!("{}/{name}", config.prefix)
}

/// `local.swarm/time` is `time` here; a name of another namespace is nobody's.
pub(super) fn own_name<'a>(config: &Config, full: &'a str) -> Option<&'a str> {
    let name = full.strip_prefix(&config.prefix)?.strip_prefix('/')?;
    proto::ids::check_name(name).is_ok().then_some(name)
}

/// `1.0.<version of the name>`: a semantic version that grows with every change.
pub(super) fn version(registration: &Registration) -> String {
    format!("1.0.{}", registration.version)
}

/// When this version was registered.
pub(super) fn registered_at(registration: &Registration) -> Timestamp {
    let millis = i64::try_from(registration.registered_at_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

fn shortened(text: String) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text;
    }
    let mut short: String = text.chars().take(TEXT_MAX - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(name: &str) -> Registration {
        Registration {
            name: name.to_owned(),
            version: 7,
            registered_at_ms: 1_700_000_000_123,
            ..Registration::default()
        }
    }

    #[test]
    fn entries_point_at_the_edge_and_carry_their_version_and_time() {
        let config = Config::default();
        let maker = Maker { config: &config, edge: "http://127.0.0.1:7700/mcp" };
        let entry = serde_json::to_value(maker.entry(&registration("time"))).expect("json");
        assert_eq!(entry["server"]["name"], "local.swarm/time");
        assert_eq!(entry["server"]["version"], "1.0.7");
        let remote = serde_json::json!({"type": "streamable-http", "url": "http://127.0.0.1:7700/mcp/time"});
        assert_eq!(entry["server"]["remotes"], serde_json::json!([remote]));
        let official = &entry["_meta"][OFFICIAL];
        assert_eq!(official["publishedAt"], "2023-11-14T22:13:20.123Z");
        assert_eq!(official["isLatest"], true);
    }

    #[test]
    fn the_longest_name_fits_the_limits_of_the_schema() {
        let config = Config { prefix: "p".repeat(71), ..Config::default() };
        let maker = Maker { config: &config, edge: "http://h/mcp" };
        let server = maker.entry(&registration(&"n".repeat(128))).server;
        assert_eq!(server.name.len(), 200);
        assert_eq!(server.title.chars().count(), 100);
        assert_eq!(server.description.chars().count(), 100);
    }

    #[test]
    fn a_name_of_another_namespace_is_nobodys() {
        let config = Config::default();
        assert_eq!(own_name(&config, "local.swarm/time"), Some("time"));
        for other in ["time", "com.example/time", "local.swarmtime", "local.swarm/", "local.swarm/a/b"] {
            assert_eq!(own_name(&config, other), None, "{other}");
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_the_end_of_it() {
        let far = Registration { registered_at_ms: u64::MAX, ..registration("a") };
        assert_eq!(registered_at(&far), Timestamp::MAX);
    }
}
