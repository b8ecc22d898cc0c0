//! Codex names secrets by the environment variable they are in.

use super::{object, process};
use crate::{api::ImportServer, api::ImportTarget, secret::is_placeholder};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn entry(server: &ImportServer) -> Value {
    match &server.target {
        ImportTarget::Http { url, headers } => remote(url, headers),
        ImportTarget::Stdio { env, .. } => {
            let mut entry = process(&server.target);
            let (forwarded, fixed): (Vec<_>, Vec<_>) =
                env.iter().partition(|(name, value)| **value == format!("${{{name}}}"));
            let names: Vec<&String> = forwarded.into_iter().map(|(name, _)| name).collect();
            let fixed: Map<String, Value> =
                fixed.into_iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("env");
                entry.extend((!fixed.is_empty()).then(|| ("env".to_owned(), Value::Object(fixed))));
                entry.extend((!names.is_empty()).then(|| ("env_vars".to_owned(), json!(names))));
            }
            entry
        }
    }
}

fn remote(url: &str, headers: &BTreeMap<String, String>) -> Value {
    let (mut bearer, mut named, mut fixed) = (None, Map::new(), Map::new());
    for (name, value) in headers {
        let variable = value.strip_prefix("Bearer ").filter(|_| name.eq_ignore_ascii_case("authorization"));
        match (variable.and_then(variable_of), variable_of(value)) {
            (Some(token), _) => bearer = Some(token),
            (None, Some(variable)) => {
                named.insert(name.clone(), json!(variable));
            }
            (None, None) => {
                fixed.insert(name.clone(), json!(value));
            }
        }
    }
    object([
        ("url", json!(url)),
        ("bearer_token_env_var", json!(bearer)),
        ("env_http_headers", Value::Object(named)),
        ("http_headers", Value::Object(fixed)),
    ])
}

/// `${NAME}` as a whole.
fn variable_of(value: &str) -> Option<&str> {
    let name = value.strip_prefix("${")?.strip_suffix('}')?;
    is_placeholder(value).then_some(name)
}
