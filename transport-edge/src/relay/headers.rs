//! The headers that travel with a relayed request and its answer.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use proto::edge::Header;

/// What MCP reads in a request and a client in an answer; nothing else is relayed.
const CARRIED: [&str; 9] = [
    "accept",
    "content-type",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "cache-control",
    "retry-after",
    "x-accel-buffering",
    "allow",
];

/// Headers as they are sent.
pub(crate) fn to_wire(headers: &HeaderMap) -> Vec<Header> {
    let carried = headers.iter().filter(|(name, _)| CARRIED.contains(&name.as_str()));
    carried
        .map(|(name, value)| Header {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec().into(),
        })
        .collect()
}

/// Headers as they came; what is not carried is left out.
pub(crate) fn from_wire(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers.iter().filter(|header| CARRIED.contains(&header.name.as_str())) {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(&header.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// Whether the answer is a stream of events.
pub(crate) fn is_events(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mcp_reads_is_carried() {
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-11-25"));
        headers.insert("cookie", HeaderValue::from_static("secret"));
        let back = from_wire(&to_wire(&headers));
        assert_eq!(back.len(), 1);
        assert!(back.contains_key("mcp-protocol-version"));
    }
}
