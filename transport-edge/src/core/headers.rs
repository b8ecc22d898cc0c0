//! What the headers of a request say, and whether they may be believed.

use super::{
    codes::{self, Problem},
    era::{MODERN, SUPPORTED},
    jsonrpc::{Envelope, Field, Kind, text},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::borrow::Cow;

/// `Mcp-Session-Id`
pub static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Prefix of the headers that mirror arguments.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Names that a page or a proxy in front of us may use.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Host names without port, lower-case; `*` takes all.
    pub hosts: Vec<String>,
    /// Origins, such as `https://app.example`; `*` takes all.
    pub origins: Vec<String>,
}

impl Names {
    /// Guards against DNS rebinding: `Host` must be one of ours, `Origin` (browsers only) too.
    pub fn allow(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), &'static str> {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes).or(authority.map(str::as_bytes));
        if !host.is_some_and(|host| self.host(host)) {
            return Err("host is not allowed");
        }
        match headers.get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) if self.origin(origin.as_bytes()) => Ok(()),
            Some(_) => Err("origin is not allowed"),
        }
    }

    fn host(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let name = without_port(host);
        is_loopback(name) || self.hosts.iter().any(|ours| ours == "*" || ours.eq_ignore_ascii_case(name))
    }

    fn origin(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.origins.iter().any(|ours| ours == "*" || ours.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|rest| is_loopback(without_port(rest)))
    }
}

fn without_port(host: &str) -> &str {
    if let Some(end) = host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        return host.get(..end + 2).unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    name == "127.0.0.1" || name == "[::1]" || name.eq_ignore_ascii_case("localhost")
}

/// Which kinds of answers the client takes; no `Accept` takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`
    pub json: bool,
    /// `text/event-stream`
    pub events: bool,
}

impl Accepts {
    /// Reads `Accept`.
    pub fn of(headers: &HeaderMap) -> Accepts {
        let mut accepts = Accepts { json: false, events: false };
        let mut any = false;
        for value in headers.get_all(header::ACCEPT) {
            any = true;
            accepts.note(value.as_bytes());
        }
        if !any {
            return Accepts { json: true, events: true };
        }
        accepts
    }

    fn note(&mut self, value: &[u8]) {
        for part in value.split(|byte| *byte == b',') {
            let kind = part.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            self.json |= [&b"application/json"[..], b"application/*", b"*/*"]
                .iter()
                .any(|k| kind.eq_ignore_ascii_case(k));
            self.events |=
                [&b"text/event-stream"[..], b"text/*", b"*/*"].iter().any(|k| kind.eq_ignore_ascii_case(k));
        }
    }
}

/// Whether the body is JSON as far as `Content-Type` tells; a missing one is taken.
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Bytes of the head: names, values and the four that stand between.
pub fn head_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Undoes `=?base64?...?=`; `None` when the sentinel holds no canonical base64 of UTF-8.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    let payload = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let Some(payload) = payload else { return Some(Cow::Borrowed(value)) };
    let bytes = STANDARD.decode(payload).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The field that `Mcp-Name` mirrors.
pub fn name_field(method: &str) -> Option<Field> {
    match method {
        "tools/call" | "prompts/get" => Some(Field::Name),
        "resources/read" => Some(Field::Uri),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some(Field::TaskId),
        _ => None,
    }
}

/// The checks of the modern era, in the order in which a client learns most (MCP.md 1.2, 3 to 9).
pub fn check_modern(headers: &HeaderMap, body: &[u8], envelope: &Envelope) -> Result<(), Problem> {
    check_meta(body, envelope)?;
    let version = envelope.text(body, Field::MetaProtocolVersion).unwrap_or_default();
    same(headers, &PROTOCOL_VERSION, &version, "protocol version")?;
    let method = envelope.method(body);
    same(headers, &METHOD, &method, "method")?;
    if let Some(field) = name_field(&method)
        && let Some(raw) = envelope.raw(body, field)
    {
        check_name(headers, &text(raw).unwrap_or_default())?;
    }
    if version != MODERN {
        return Err(unsupported(&version));
    }
    Ok(())
}

/// The answer to a revision that is not served.
pub fn unsupported(requested: &str) -> Problem {
    let requested: String = requested.chars().take(64).collect();
    Problem::new(codes::UNSUPPORTED_VERSION, "unsupported protocol version")
        .with(serde_json::json!({ "supported": SUPPORTED, "requested": requested }))
}

fn check_meta(body: &[u8], envelope: &Envelope) -> Result<(), Problem> {
    if envelope.kind == Kind::Notification {
        return Ok(());
    }
    let mut missing = Vec::new();
    for (field, key) in [
        (Field::MetaProtocolVersion, "io.modelcontextprotocol/protocolVersion"),
        (Field::MetaClientCapabilities, "io.modelcontextprotocol/clientCapabilities"),
    ] {
        if !envelope.has(field) {
            missing.push(key);
        }
    }
    if !missing.is_empty() {
        let message = format!("params._meta is missing {}", missing.join(" and "));
        return Err(Problem::new(codes::INVALID_PARAMS, message));
    }
    if envelope.text(body, Field::MetaProtocolVersion).is_none() {
        return Err(Problem::new(codes::INVALID_PARAMS, "protocolVersion in params._meta is not a string"));
    }
    if !envelope.is_object(body, Field::MetaClientCapabilities) {
        return Err(Problem::new(
            codes::INVALID_PARAMS,
            "clientCapabilities in params._meta is not an object",
        ));
    }
    Ok(())
}

fn same(headers: &HeaderMap, name: &HeaderName, body: &str, what: &str) -> Result<(), Problem> {
    match single(headers, name)? {
        Some(value) if value.as_bytes() == body.as_bytes() => Ok(()),
        _ => Err(mismatch(format!("header {name} does not match the {what} of the body"))),
    }
}

fn check_name(headers: &HeaderMap, body: &str) -> Result<(), Problem> {
    let value = single(headers, &NAME)?.and_then(|value| value.to_str().ok());
    match value.and_then(decode) {
        Some(name) if name == body => Ok(()),
        _ => Err(mismatch("header mcp-name does not match the body".into())),
    }
}

/// A routing header that comes twice could be read in two ways.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(mismatch(format!("header {name} comes more than once"))),
    }
}

/// A difference between header and body.
pub fn mismatch(message: String) -> Problem {
    Problem::new(codes::HEADER_MISMATCH, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::jsonrpc::scan;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"grüß","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

    fn code(pairs: &[(&'static str, &str)], body: &str) -> Option<i32> {
        let envelope = scan(body.as_bytes()).unwrap();
        check_modern(&headers(pairs), body.as_bytes(), &envelope).err().map(|problem| problem.code)
    }

    #[test]
    fn header_and_body_must_agree() {
        let version = ("mcp-protocol-version", MODERN);
        let method = ("mcp-method", "tools/call");
        let name = ("mcp-name", "=?base64?Z3LDvMOf?=");
        assert_eq!(code(&[version, method, name], CALL), None);
        assert_eq!(code(&[version, method], CALL), Some(codes::HEADER_MISMATCH));
        assert_eq!(
            code(&[version, method, ("mcp-name", "=?base64?!!?=")], CALL),
            Some(codes::HEADER_MISMATCH)
        );
        assert_eq!(code(&[version, ("mcp-method", "Tools/Call"), name], CALL), Some(codes::HEADER_MISMATCH));
        assert_eq!(code(&[version, method, method, name], CALL), Some(codes::HEADER_MISMATCH));
        assert_eq!(
            code(&[("mcp-protocol-version", "2025-11-25"), method, name], CALL),
            Some(codes::HEADER_MISMATCH)
        );
    }

    #[test]
    fn the_meta_of_a_request_is_required() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert_eq!(code(&[("mcp-protocol-version", MODERN)], body), Some(codes::INVALID_PARAMS));
        let body = CALL.replace(MODERN, "2030-01-01");
        let pairs = [
            ("mcp-protocol-version", "2030-01-01"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?Z3LDvMOf?="),
        ];
        assert_eq!(code(&pairs, &body), Some(codes::UNSUPPORTED_VERSION));
    }

    #[test]
    fn only_our_hosts_and_origins_are_served() {
        let names = Names { hosts: vec!["edge.example".into()], origins: vec!["https://app.example".into()] };
        let allowed = |pairs: &[(&'static str, &str)]| names.allow(&headers(pairs), None).is_ok();
        for host in ["127.0.0.1:7700", "localhost", "[::1]:7700", "EDGE.example:443"] {
            assert!(allowed(&[("host", host)]), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "", "[::2]:1", "localhost.evil:80"] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
        assert!(!allowed(&[]));
        for (origin, fine) in [
            ("http://localhost:3000", true),
            ("https://app.example", true),
            ("https://evil.example", false),
            ("null", false),
            ("http://localhost.evil.example", false),
        ] {
            assert_eq!(allowed(&[("host", "localhost"), ("origin", origin)]), fine, "{origin}");
        }
    }

    #[test]
    fn accept_is_read_as_a_list() {
        let of = |text: &str| Accepts::of(&headers(&[("accept", text)]));
        assert_eq!(of("application/json, text/event-stream"), Accepts { json: true, events: true });
        assert_eq!(of("Application/JSON;q=1"), Accepts { json: true, events: false });
        assert_eq!(of("*/*"), Accepts { json: true, events: true });
        assert_eq!(of("text/html"), Accepts { json: false, events: false });
        assert_eq!(Accepts::of(&HeaderMap::new()), Accepts { json: true, events: true });
    }
}
