//! What the bridge needs to know of one JSON-RPC line.

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::borrow::Cow;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The parts that are routed on; the line itself is forwarded as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Request id as written, absent in notifications.
    pub(super) id: Option<String>,
    /// Absent in responses.
    pub(super) method: Option<String>,
    /// `_meta`'s protocol version: the message is of the modern era.
    pub(super) modern: Option<String>,
    /// `params.name`, `params.uri` or `params.taskId`, where the modern era routes on it.
    pub(super) name: Option<String>,
    /// `params.requestId` of `notifications/cancelled`.
    pub(super) cancels: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "taskId")]
    task_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "requestId")]
    request_id: Option<&'a RawValue>,
}

impl Message {
    /// Reads one line; an array (a batch) has neither id nor method.
    pub(super) fn parse(line: &str) -> Result<Message, String> {
        if line.trim_start().starts_with('[') {
            let _: Vec<&RawValue> = serde_json::from_str(line).map_err(|e| e.to_string())?;
            return Ok(Message { id: None, method: None, modern: None, name: None, cancels: None });
        }
        let envelope: Envelope<'_> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let raw = envelope.params.map(RawValue::get).unwrap_or("{}");
        // Params of another shape are the server's business.
        let params: Params<'_> = serde_json::from_str(raw).unwrap_or_default();
        let method = envelope.method.map(Cow::into_owned);
        let name = match method.as_deref() {
            Some("tools/call" | "prompts/get") => params.name,
            Some("resources/read") => params.uri,
            Some("tasks/get" | "tasks/update" | "tasks/cancel") => params.task_id,
            _ => None,
        };
        Ok(Message {
            id: envelope.id.map(|id| id.get().to_owned()),
            modern: params.meta.and_then(version),
            name: name.map(Cow::into_owned),
            cancels: params.request_id.map(|id| id.get().to_owned()),
            method,
        })
    }

    /// Whether an answer is due.
    pub(super) fn is_request(&self) -> bool {
        self.id.is_some() && self.method.is_some()
    }

    /// Whether it is this method.
    pub(super) fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// The headers of the modern era, which mirror the body.
    pub(super) fn modern_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mirrored =
            [("mcp-protocol-version", &self.modern), ("mcp-method", &self.method), ("mcp-name", &self.name)];
        for (name, value) in mirrored {
            if let Some(value) = value.as_deref().and_then(header_value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }
}

fn version(meta: &RawValue) -> Option<String> {
    let meta: Value = serde_json::from_str(meta.get()).ok()?;
    meta.get(META_VERSION)?.as_str().map(str::to_owned)
}

/// Plain where HTTP allows it, else in the base64 sentinel of the specification.
fn header_value(text: &str) -> Option<HeaderValue> {
    let visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if visible && text.trim() == text && !text.starts_with("=?base64?") {
        return HeaderValue::from_str(text).ok();
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    HeaderValue::from_str(&format!("=?base64?{encoded}?=")).ok()
}

/// A JSON-RPC error line of the bridge's own.
pub(super) fn error_line(id: Option<&str>, code: i32, message: &str, reason: &str) -> String {
    // The id is raw JSON that was parsed before.
    let id = id.unwrap_or("null");
    let error = json!({ "code": code, "message": message, "data": { "reason": reason } });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// One line of JSON: outside of strings a line break is white space, inside it is escaped.
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        return Cow::Owned(json.replace(['\n', '\r'], " "));
    }
    Cow::Borrowed(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modern_call_is_mirrored_in_headers() {
        let line = r#"{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{"name":"zeit_ü",
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let message = Message::parse(line).expect("parses");
        assert_eq!(message.id.as_deref(), Some("\"a-1\""));
        let headers = message.modern_headers();
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers["mcp-method"], "tools/call");
        assert_eq!(headers["mcp-name"], "=?base64?emVpdF/DvA==?=");
    }

    #[test]
    fn legacy_messages_are_told_apart() {
        let request = Message::parse(r#"{"id":1,"method":"ping"}"#).expect("parses");
        assert!(request.is_request() && request.modern.is_none());
        let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#;
        let cancel = Message::parse(cancel).expect("parses");
        assert!(!cancel.is_request());
        assert_eq!(cancel.cancels.as_deref(), Some("7"));
        assert!(!Message::parse(r#"{"id":1,"result":{}}"#).expect("parses").is_request());
        assert!(Message::parse("{nope").is_err());
    }

    #[test]
    fn own_errors_are_json_on_one_line() {
        let line = error_line(Some("\"x\""), -32000, "a \"b\"\nc", "GONE");
        let value: Value = serde_json::from_str(&line).expect("json");
        assert_eq!(value["id"], "x");
        assert!(!line.contains('\n'));
        assert_eq!(one_line("{\n\"a\":1}"), "{ \"a\":1}");
    }
}
