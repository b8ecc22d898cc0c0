//! Prompts and resources.

use super::protocol::Refusal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAMES: [&str; 4] = ["Ada", "Alan", "Barbara", "Grace"];

pub(super) fn prompts() -> Value {
    json!([{
        "name": "greet",
        "title": "Greeting",
        "description": "Asks for a greeting of somebody",
        "arguments": [{"name": "name", "description": "Who is greeted", "required": true}],
    }])
}

pub(super) fn prompt(params: &Value) -> Result<Value, Refusal> {
    if params["name"] != "greet" {
        return Err(Refusal::invalid("unknown prompt"));
    }
    let name =
        params["arguments"]["name"].as_str().ok_or_else(|| Refusal::invalid("argument `name` is missing"))?;
    let text = format!("Write one friendly sentence to greet {name}.");
    Ok(json!({
        "description": "A greeting",
        "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
    }))
}

/// Completes the `name` of the prompt.
pub(super) fn complete(params: &Value) -> Value {
    let typed = params["argument"]["value"].as_str().unwrap_or_default().to_lowercase();
    let values: Vec<&str> =
        NAMES.into_iter().filter(|name| name.to_lowercase().starts_with(&typed)).collect();
    json!({"completion": {"values": values, "total": values.len(), "hasMore": false}})
}

pub(super) fn resources(notes: &BTreeMap<String, String>) -> Value {
    let resource = |id: &String| json!({"uri": uri(id), "name": id, "mimeType": "text/plain"});
    notes.keys().map(resource).collect()
}

pub(super) fn templates() -> Value {
    json!([{
        "uriTemplate": "note://{id}",
        "name": "note",
        "description": "A note; `set_note` writes one",
        "mimeType": "text/plain",
    }])
}

pub(super) fn read(notes: &BTreeMap<String, String>, params: &Value, modern: bool) -> Result<Value, Refusal> {
    let uri = params["uri"].as_str().ok_or_else(|| Refusal::invalid("`uri` is missing"))?;
    let text = uri.strip_prefix("note://").and_then(|id| notes.get(id));
    let text = text.ok_or_else(|| Refusal {
        code: if modern { -32602 } else { -32002 },
        message: "no such note".into(),
        data: json!({"uri": uri}),
    })?;
    Ok(json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}))
}

pub(super) fn uri(id: &str) -> String {
    format!("note://{id}")
}
