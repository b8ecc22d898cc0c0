//! What one backend offers.

use super::page::{List, Shelf};
use crate::core::{json::member, jsonrpc::text, splice::Edit, splice::splice};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::sync::Arc;

/// Longest name of a tool or prompt, and longest URI.
const MAX_KEY: usize = 2048;

/// Whether a backend can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Not tried to the end yet.
    Starting,
    /// It answers.
    Ready,
    /// It does not; the reason says why.
    Failing,
}

impl ServerState {
    /// The word in views.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerState::Starting => "starting",
            ServerState::Ready => "ready",
            ServerState::Failing => "failing",
        }
    }
}

/// What a tool says of itself, as far as we act on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `annotations.readOnlyHint`
    pub read_only: bool,
    /// `annotations.idempotentHint`
    pub idempotent: bool,
    /// `x-mcp-header` of its input schema.
    pub headers: Arc<[HeaderParam]>,
}

impl Hints {
    /// True when a call may be sent again after an unknown outcome (DESIGN K30).
    pub fn repeatable(&self) -> bool {
        self.read_only || self.idempotent
    }
}

/// An argument that a modern client mirrors into `Mcp-Param-<token>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParam {
    /// Keys from `arguments` down to the value.
    pub path: Vec<String>,
    /// The header's last part.
    pub token: String,
}

/// One entry of a list, as the backend wrote it.
#[derive(Debug, Clone)]
pub struct Item {
    /// `name`, `uri` or `uriTemplate`.
    pub key: Arc<str>,
    /// The JSON object.
    pub raw: Bytes,
    /// Of tools.
    pub hints: Hints,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "uriTemplate")]
    uri_template: Option<&'a RawValue>,
    annotations: Option<Value>,
    #[serde(borrow, rename = "inputSchema")]
    input_schema: Option<&'a RawValue>,
}

impl Item {
    /// Reads one entry of `list`; `None` when it has no usable key.
    pub fn parse(list: List, raw: &[u8]) -> Option<Item> {
        let named: Named<'_> = serde_json::from_slice(raw).ok()?;
        let key = match list {
            List::Tools | List::Prompts => named.name,
            List::Resources => named.uri,
            List::Templates => named.uri_template,
        };
        let key = text(key?.get().as_bytes())?;
        if key.is_empty() || key.len() > MAX_KEY {
            return None;
        }
        let flag = |name: &str| {
            let annotations = named.annotations.as_ref();
            annotations.and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or(false)
        };
        let hints = match list {
            List::Tools => Hints {
                read_only: flag("readOnlyHint"),
                idempotent: flag("idempotentHint"),
                headers: named.input_schema.map(header_params).unwrap_or_default(),
            },
            _ => Hints::default(),
        };
        Some(Item { key: key.as_ref().into(), raw: Bytes::copy_from_slice(raw), hints })
    }

    /// The object with another `name`.
    pub(super) fn renamed(&self, name: &str) -> Bytes {
        let Some(span) = member(&self.raw, "name") else {
            return self.raw.clone();
        };
        splice(&self.raw, &[Edit::replace(span, Value::from(name).to_string())])
    }
}

/// The valid `x-mcp-header` of a schema: tokens on primitive properties reached by
/// `properties` alone. One invalid or repeated token voids all, as clients drop such a tool.
fn header_params(schema: &RawValue) -> Arc<[HeaderParam]> {
    if !schema.get().contains("x-mcp-header") {
        return Arc::default();
    }
    let mut found = Vec::new();
    let parsed: Value = serde_json::from_str(schema.get()).unwrap_or_default();
    collect_headers(&parsed, &mut Vec::new(), &mut found);
    let lower = |param: &HeaderParam| param.token.to_ascii_lowercase();
    let mut tokens: Vec<String> = found.iter().map(lower).collect();
    tokens.sort();
    tokens.dedup();
    let is_token =
        |param: &HeaderParam| http::HeaderName::try_from(format!("mcp-param-{}", param.token)).is_ok();
    match tokens.len() == found.len() && found.iter().all(is_token) {
        true => found.into(),
        false => Arc::default(),
    }
}

fn collect_headers(schema: &Value, path: &mut Vec<String>, found: &mut Vec<HeaderParam>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (key, property) in properties {
        path.push(key.clone());
        if let Some(token) = property.get("x-mcp-header").and_then(Value::as_str) {
            found.push(HeaderParam { path: path.clone(), token: token.into() });
        }
        if path.len() < 16 {
            collect_headers(property, path, found);
        }
        path.pop();
    }
}

/// One backend as the catalogue sees it.
#[derive(Debug, Clone)]
pub struct ServerEntry {
    /// Whether it can be used.
    pub state: ServerState,
    /// Why not, in words; empty when ready.
    pub reason: String,
    /// `legacy` or `modern`, once known.
    pub era: Option<crate::backend::Era>,
    /// The protocol version spoken with it.
    pub protocol_version: String,
    /// Raw `capabilities` of its initialize or discover result.
    pub capabilities: Bytes,
    /// Raw `serverInfo`.
    pub server_info: Bytes,
    /// Its instructions.
    pub instructions: Option<String>,
    /// `tools/list`
    pub tools: Vec<Item>,
    /// `prompts/list`
    pub prompts: Vec<Item>,
    /// `resources/list`
    pub resources: Vec<Item>,
    /// `resources/templates/list`
    pub templates: Vec<Item>,
}

impl ServerEntry {
    /// One of which nothing is known yet.
    pub fn starting() -> Self {
        ServerEntry {
            state: ServerState::Starting,
            reason: "starting".into(),
            era: None,
            protocol_version: String::new(),
            capabilities: Bytes::from_static(b"{}"),
            server_info: Bytes::from_static(b"{}"),
            instructions: None,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
        }
    }

    /// True when `capabilities` has the dotted path, and it is not `false`.
    pub fn has_capability(&self, path: &str) -> bool {
        let capabilities: Value = serde_json::from_slice(&self.capabilities).unwrap_or_default();
        let found = path.split('.').try_fold(&capabilities, |value, key| value.get(key));
        !matches!(found, None | Some(Value::Null | Value::Bool(false)))
    }

    pub(super) fn shelf(&self, list: List) -> Shelf {
        let items = match list {
            List::Tools => &self.tools,
            List::Prompts => &self.prompts,
            List::Resources => &self.resources,
            List::Templates => &self.templates,
        };
        let mut listed: Vec<_> = items.iter().map(|item| (item.key.to_string(), item.raw.clone())).collect();
        listed.sort_by(|left, right| left.0.cmp(&right.0));
        Shelf::new(list, listed)
    }
}
