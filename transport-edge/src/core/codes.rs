//! JSON-RPC errors that the edge itself gives.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// Not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but not a message that is taken.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Missing or wrong parameters; also an unknown tool or prompt.
pub const INVALID_PARAMS: i32 = -32602;
/// A failure of ours.
pub const INTERNAL_ERROR: i32 = -32603;
/// A resource that no backend has; legacy only.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// A session that is not there (404); the code official SDKs use.
pub const SESSION_NOT_FOUND: i32 = -32001;
/// Header and body differ; modern only.
pub const HEADER_MISMATCH: i32 = -32020;
/// A revision that is not served; modern only.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// Codes of our own, outside the range that JSON-RPC reserves (MCP.md 1.2, 15).
pub mod own {
    /// The backend cannot be used; `data.reason` says why, `data.retryable` is true.
    pub const BACKEND_UNAVAILABLE: i32 = 503;
    /// The backend did not answer in time.
    pub const BACKEND_TIMEOUT: i32 = 504;
    /// The backend broke the protocol.
    pub const BACKEND_PROTOCOL: i32 = 502;
    /// A limit of the edge is reached.
    pub const OVERLOADED: i32 = 429;
    /// The node that worked on the request is lost; the request may or may not have run.
    pub const NODE_LOST: i32 = 520;
    /// The client cancelled the request.
    pub const CANCELLED: i32 = 499;
    /// The answer is larger than the limit.
    pub const TOO_LARGE: i32 = 413;
}

/// An error about to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// JSON-RPC code.
    pub code: i32,
    /// In words, for people and models.
    pub message: String,
    /// `error.data`.
    pub data: Option<Value>,
}

impl Problem {
    /// An error without data.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), data: None }
    }

    /// The same with `error.data`.
    pub fn with(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// The whole message; `id` as the client wrote it, `null` when it could not be read.
    pub fn body(&self, id: Option<&[u8]>) -> Bytes {
        let mut error = serde_json::json!({ "code": self.code, "message": self.message });
        if let (Some(data), Some(object)) = (&self.data, error.as_object_mut()) {
            object.insert("data".into(), data.clone());
        }
        envelope(id, "error", error.to_string().as_bytes())
    }
}

/// `{"jsonrpc":"2.0","id":<id>,"result":<result>}`.
pub fn result(id: &[u8], result: &[u8]) -> Bytes {
    envelope(Some(id), "result", result)
}

fn envelope(id: Option<&[u8]>, member: &str, value: &[u8]) -> Bytes {
    let id = id.unwrap_or(b"null");
    let mut out = BytesMut::with_capacity(40 + id.len() + value.len());
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id);
    out.put_slice(b",\"");
    out.put_slice(member.as_bytes());
    out.put_slice(b"\":");
    out.put_slice(value);
    out.put_u8(b'}');
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_goes_back_as_it_came() {
        assert_eq!(&result(b"\"a\\u0062\"", b"{}")[..], br#"{"jsonrpc":"2.0","id":"a\u0062","result":{}}"#);
        let body = Problem::new(PARSE_ERROR, "no").body(None);
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            serde_json::json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "no"}})
        );
    }
}
