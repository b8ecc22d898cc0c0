//! The MCP registry API v0.1 on the admin port: clients that read a registry find our backends
//! there, each with a URL of our edge, and connect through it.
//!
//! | path | what |
//! |---|---|
//! | `GET /v0.1/servers?cursor&limit&search&updated_since&version` | a page, in name order |
//! | `GET /v0.1/servers/{name}/versions` | the versions of one: the newest is all that is kept |
//! | `GET /v0.1/servers/{name}/versions/{version}` | one version; `latest` is one too |
//!
//! Contract: the OpenAPI document "2025-12-01" of `modelcontextprotocol/registry`, its generic
//! part, and `server.json` of 2025-12-11. `{name}` is URL-encoded, for it has a slash. Errors are
//! `{"error": "words"}`. Reads are open to pages of every origin, as registry clients in browsers
//! and editors ask for (CORS: GET and OPTIONS); so an entry never shows a command, an environment,
//! a header or a backend's own URL. Publishing answers 501: names are given by `swarm registry`.

mod cursor;
mod entry;
mod page;
mod query;
mod views;

pub use entry::{OFFICIAL, SCHEMA, ServerList, ServerResponse};
pub use views::mount;

use kit::config::ConfigError;
use serde::{Deserialize, Serialize};

/// Longest prefix in bytes: with a slash and a name of ours it fits the 200 of the schema.
const PREFIX_MAX: usize = 200 - 1 - proto::ids::NAME_MAX;

/// `[catalog]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Namespace of our names: backend `time` is listed as `<prefix>/time`. A reverse domain name.
    pub prefix: String,
    /// URL under which clients reach the edge, up to and with `/mcp`; empty for where it is bound.
    pub public_url: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { prefix: "local.swarm".to_owned(), public_url: String::new() }
    }
}

impl Config {
    /// Refuses what the schema of the API would refuse in an entry.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: &str, rule: &str| {
            Err(ConfigError::Invalid(format!("catalog.{key} = {value:?}: {rule}")))
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if !(1..=PREFIX_MAX).contains(&self.prefix.len()) || !self.prefix.chars().all(allowed) {
            let rule = format!("must be 1 to {PREFIX_MAX} characters of A-Z a-z 0-9 . -");
            return refuse("prefix", &self.prefix, &rule);
        }
        if !self.public_url.is_empty() && !is_base(&self.public_url) {
            let rule = "must be an http:// or https:// url without a query";
            return refuse("public_url", &self.public_url, rule);
        }
        Ok(())
    }
}

fn is_base(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    web && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none() && !url.contains('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(prefix: &str, public_url: &str) -> String {
        let config = Config { prefix: prefix.to_owned(), public_url: public_url.to_owned() };
        config.validate().map(|()| String::new()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn the_prefix_leaves_room_for_the_longest_name() {
        assert_eq!(refusal("com.example.tools-1", "https://mcp.example.com/mcp"), "");
        assert_eq!(refusal(&"p".repeat(71), ""), "");
        let rule = "must be 1 to 71 characters of A-Z a-z 0-9 . -";
        assert_eq!(refusal("", ""), format!("catalog.prefix = \"\": {rule}"));
        assert!(refusal(&"p".repeat(72), "").ends_with(rule));
        assert!(refusal("a/b", "").ends_with(rule));
    }

    #[test]
    fn the_public_url_is_one_that_a_path_can_be_put_behind() {
        let rule = "must be an http:// or https:// url without a query";
        for url in ["mcp.example.com/mcp", "ftp://h/mcp", "http://h/mcp?a=1", "http://h/mcp#x", "https://"] {
            assert_eq!(refusal("p", url), format!("catalog.public_url = {url:?}: {rule}"));
        }
    }
}
