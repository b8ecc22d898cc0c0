//! Pure: what changes in a message on its way to a backend and back (MCP.md 1.1, 14).

use super::{Era, FromBackend};
use crate::core::{
    codes,
    jsonrpc::{Envelope, Field, Kind, text},
    splice::{Edit, Edits, splice},
};
use bytes::Bytes;

/// The revision spoken with modern backends.
pub(crate) const MODERN: &str = "2026-07-28";
/// The one asked for first of legacy backends.
pub(crate) const LEGACY: &str = "2025-11-25";

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Who asks a modern backend, when the request does not say so itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Introduction {
    pub(crate) client_info: Bytes,
    pub(crate) capabilities: Bytes,
    /// Raw JSON of the level set by `logging/setLevel`.
    pub(crate) log_level: Option<Bytes>,
}

/// What must be put back into everything that comes for one request.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    id: Bytes,
    token: Option<Bytes>,
    /// The client speaks the modern era.
    modern_client: bool,
    /// The result needs `ttlMs` and `cacheScope` in the modern era.
    cacheable: bool,
    era: Era,
    server_info: Bytes,
}

/// A request ready for the backend.
pub(crate) struct Outbound {
    pub(crate) body: Bytes,
    pub(crate) origin: Origin,
}

/// Puts our id (and the same number as progress token) into a request, and what the backend's
/// era asks for.
pub(crate) fn outbound(
    raw: &Bytes,
    envelope: &Envelope,
    mut edits: Edits,
    id: u64,
    era: Era,
    who: &Introduction,
    server_info: Bytes,
) -> Outbound {
    let number = Bytes::from(id.to_string());
    edits.push(Edit::replace(envelope.span(Field::Id), number.clone()));
    let token = envelope.raw(raw, Field::MetaProgressToken).map(|token| raw.slice_ref(token));
    if token.is_some() {
        edits.push(Edit::replace(envelope.span(Field::MetaProgressToken), number));
    }
    let modern_client = envelope.has(Field::MetaProtocolVersion);
    if era == Era::Modern && !modern_client {
        edits.extend(introduce(raw, envelope, who));
    }
    let cacheable = envelope.raw(raw, Field::Method).is_some_and(is_cacheable);
    let client_id = envelope.id(raw).map_or_else(|| Bytes::from_static(b"null"), |id| raw.slice_ref(id));
    let origin = Origin { id: client_id, token, modern_client, cacheable, era, server_info };
    Outbound { body: splice(raw, &edits), origin }
}

fn introduce(raw: &[u8], envelope: &Envelope, who: &Introduction) -> Option<Edit> {
    let version = [b"\"", MODERN.as_bytes(), b"\""].concat();
    let capabilities: &[u8] = if who.capabilities.is_empty() { b"{}" } else { &who.capabilities };
    let mut members: Vec<(&str, &[u8])> = vec![(META_VERSION, &version), (META_CAPABILITIES, capabilities)];
    if !who.client_info.is_empty() {
        members.push((META_CLIENT, &who.client_info));
    }
    if let Some(level) = &who.log_level {
        members.push((META_LOG_LEVEL, level));
    }
    let known = [
        (META_VERSION, Field::MetaProtocolVersion),
        (META_CAPABILITIES, Field::MetaClientCapabilities),
        (META_CLIENT, Field::MetaClientInfo),
        (META_LOG_LEVEL, Field::MetaLogLevel),
    ];
    let is_there = |key: &str| known.iter().any(|(name, field)| *name == key && envelope.has(*field));
    members.retain(|(key, _)| !is_there(key));
    Edit::set_meta_all(raw, envelope, &members)
}

fn is_cacheable(method: &[u8]) -> bool {
    let method = text(method);
    let lists =
        ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];
    method.is_some_and(|method| lists.contains(&method.as_ref()))
}

impl Origin {
    /// The answer as the client may have it.
    pub(crate) fn response(&self, raw: &Bytes, envelope: &Envelope) -> FromBackend {
        if envelope.kind == Kind::Error {
            let raw = splice(raw, &self.id_edit(raw, envelope));
            return FromBackend::Response { raw, is_error: true, tool_error: false };
        }
        let result_type = envelope.text(raw, Field::ResultType);
        if self.era == Era::Modern && !self.modern_client && result_type.as_deref() == Some("input_required")
        {
            let problem = codes::Problem::new(
                codes::INTERNAL_ERROR,
                "the backend asks for input in a way that this client's protocol version does not have",
            );
            return FromBackend::Response {
                raw: problem.body(Some(&self.id)),
                is_error: true,
                tool_error: false,
            };
        }
        let mut edits = self.id_edit(raw, envelope);
        if self.modern_client && self.era == Era::Legacy {
            edits.extend(self.complete(raw, envelope));
        }
        if envelope.has(Field::ResultMetaSubscriptionId) {
            edits.push(Edit::replace(envelope.span(Field::ResultMetaSubscriptionId), self.id.clone()));
        }
        let tool_error = envelope.is_tool_error(raw);
        FromBackend::Response { raw: splice(raw, &edits), is_error: false, tool_error }
    }

    fn id_edit(&self, raw: &[u8], envelope: &Envelope) -> Edits {
        let edit = match envelope.has(Field::Id) {
            true => Some(Edit::replace(envelope.span(Field::Id), self.id.clone())),
            false => Edit::insert(raw, envelope.root, "id", &self.id),
        };
        edit.into_iter().collect()
    }

    /// Members that a modern result must have and a legacy one has not.
    fn complete(&self, raw: &[u8], envelope: &Envelope) -> Edits {
        let key = "io.modelcontextprotocol/serverInfo";
        let meta = [b"{\"", key.as_bytes(), b"\":", &self.server_info, b"}"].concat();
        let named = self.server_info.is_empty() || envelope.has(Field::ResultMetaServerInfo);
        let mut members: Vec<(&str, &[u8])> = Vec::new();
        let mut add = |wanted: bool, key, value, field| {
            if wanted && !envelope.has(field) {
                members.push((key, value));
            }
        };
        add(true, "resultType", b"\"complete\"".as_slice(), Field::ResultType);
        add(self.cacheable, "ttlMs", b"0", Field::TtlMs);
        add(self.cacheable, "cacheScope", b"\"private\"", Field::CacheScope);
        add(!named, "_meta", &meta, Field::ResultMeta);
        let mut edits: Edits =
            Edit::insert_all(raw, envelope.span(Field::Result), &members).into_iter().collect();
        if !named && envelope.is_object(raw, Field::ResultMeta) {
            edits.extend(Edit::insert(raw, envelope.span(Field::ResultMeta), key, &self.server_info));
        }
        edits
    }

    /// A notification of this request as the client may have it.
    pub(crate) fn notification(&self, raw: &Bytes, envelope: &Envelope) -> Bytes {
        let mut edits = Edits::new();
        if let Some(token) = &self.token
            && envelope.has(Field::ProgressToken)
        {
            edits.push(Edit::replace(envelope.span(Field::ProgressToken), token.clone()));
        }
        if envelope.has(Field::MetaSubscriptionId) {
            edits.push(Edit::replace(envelope.span(Field::MetaSubscriptionId), self.id.clone()));
        }
        splice(raw, &edits)
    }
}

/// The number in a span, when it is one that we gave out.
pub(crate) fn number(raw: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(raw?).ok()?.parse().ok()
}

/// Newline-delimited framing: line breaks between tokens become spaces (inside strings the
/// scanner lets none through), and one ends the message.
pub(crate) fn framed(body: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(body.len() + 1);
    line.extend_from_slice(body);
    if memchr::memchr2(b'\n', b'\r', body).is_some() {
        for byte in &mut line {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::jsonrpc::{scan, scan_backend};
    use serde_json::{Value, json};

    fn ask(request: Value, era: Era) -> (Value, Origin) {
        let raw = Bytes::from(request.to_string());
        let envelope = scan(&raw).unwrap();
        let who = Introduction { client_info: "{\"name\":\"c\"}".into(), ..Default::default() };
        let out = outbound(&raw, &envelope, Edits::new(), 77, era, &who, "{\"name\":\"s\"}".into());
        scan(&out.body).unwrap();
        (serde_json::from_slice(&out.body).unwrap(), out.origin)
    }

    fn answer(origin: &Origin, response: Value) -> Value {
        let raw = Bytes::from(response.to_string());
        let FromBackend::Response { raw, .. } = origin.response(&raw, &scan_backend(&raw).unwrap()) else {
            panic!("not a response")
        };
        scan(&raw).unwrap();
        serde_json::from_slice(&raw).unwrap()
    }

    #[test]
    fn ids_and_tokens_go_out_as_numbers_and_come_back_as_they_were() {
        let (sent, origin) = ask(
            json!({"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"_meta":{"progressToken":"t"}}}),
            Era::Legacy,
        );
        assert_eq!((&sent["id"], &sent["params"]["_meta"]["progressToken"]), (&json!(77), &json!(77)));
        let raw = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":77,"progress":1}}"#);
        let back: Value = serde_json::from_slice(&origin.notification(&raw, &scan(&raw).unwrap())).unwrap();
        assert_eq!(back["params"]["progressToken"], "t");
        assert_eq!(answer(&origin, json!({"jsonrpc":"2.0","id":77,"result":{}}))["id"], "x");
        assert_eq!(
            answer(&origin, json!({"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}))["id"],
            "x"
        );
        assert_eq!(answer(&origin, json!({"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}))["id"], "x");
    }

    #[test]
    fn a_legacy_request_is_introduced_to_a_modern_backend() {
        let (sent, _) =
            ask(json!({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}), Era::Modern);
        assert_eq!(
            sent["params"]["_meta"],
            json!({META_VERSION: MODERN, META_CAPABILITIES: {}, META_CLIENT: {"name": "c"}})
        );
    }

    #[test]
    fn a_legacy_result_is_completed_for_a_modern_client() {
        let modern = json!({META_VERSION: MODERN, META_CAPABILITIES: {}});
        for method in ["tools/call", "resources/read"] {
            let (_, origin) =
                ask(json!({"jsonrpc":"2.0","id":1,"method":method,"params":{"_meta": modern}}), Era::Legacy);
            for result in [
                json!({}),
                json!({"a":1}),
                json!({"_meta":{}}),
                json!({"_meta":{"x":1},"a":1}),
                json!({"resultType":"complete"}),
            ] {
                let back = answer(&origin, json!({"jsonrpc":"2.0","id":77,"result":result}));
                assert_eq!(back["result"]["resultType"], "complete", "{method} {result}");
                assert_eq!(back["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "s");
                assert_eq!(back["result"].get("ttlMs").is_some(), method == "resources/read");
            }
        }
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(framed(b"{\n \"a\":\r\n1}"), "{  \"a\":  1}\n");
    }
}
