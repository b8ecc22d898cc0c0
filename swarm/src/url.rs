//! URLs: text put into them, and where what listens on all interfaces is reached. Pure.

use http::uri::Authority;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Percent-encoded, all but the unreserved (RFC 3986 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// `key=value&...` of pairs.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| format!("{key}={}", encoded(&value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A URL that can be connected to: `0.0.0.0` and `[::]`, where a listener takes all interfaces, are
/// no addresses to go to. It is reached as `host`, an authority under which that machine is
/// known, and over loopback when there is none.
pub(crate) fn reachable(url: &str, host: Option<&str>) -> String {
    let found = authority(url).and_then(|authority| Some((authority, unspecified(authority)?)));
    let Some((authority, bound)) = found else { return url.to_owned() };
    let known = host.and_then(|host| host.parse::<Authority>().ok());
    let known = known.filter(|known| !is_unspecified(known.host()));
    let host = known.as_ref().map_or("127.0.0.1", Authority::host);
    url.replacen(authority, &format!("{host}:{}", bound.port()), 1)
}

/// host:port of a URL.
pub(crate) fn authority(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', '?', '#']).next()
}

fn unspecified(authority: &str) -> Option<SocketAddr> {
    authority.parse().ok().filter(|bound: &SocketAddr| bound.ip().is_unspecified())
}

fn is_unspecified(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_as_its_machine_is_known() {
        let named = |url: &str, host: &str| reachable(url, Some(host));
        assert_eq!(named("http://0.0.0.0:7700/mcp", "10.1.2.3:7600"), "http://10.1.2.3:7700/mcp");
        assert_eq!(named("http://[::]:7700/mcp", "[fd00::1]:7600"), "http://[fd00::1]:7700/mcp");
        assert_eq!(named("http://0.0.0.0:7700/mcp", "mcp.example"), "http://mcp.example:7700/mcp");
        assert_eq!(named("http://127.0.0.1:7700/mcp", "other:7600"), "http://127.0.0.1:7700/mcp");
        assert_eq!(named("http://h/0.0.0.0:1", "other:7600"), "http://h/0.0.0.0:1");
    }

    #[test]
    fn nothing_known_of_the_machine_is_this_one() {
        for (url, host) in [
            ("http://0.0.0.0:7700/mcp", None),
            ("http://[::]:7700/mcp", None),
            ("http://0.0.0.0:7700/mcp", Some("0.0.0.0:7600")),
            ("http://[::]:7700/mcp", Some("[::]:7600")),
            ("http://0.0.0.0:7700/mcp", Some("no authority")),
        ] {
            assert_eq!(reachable(url, host), "http://127.0.0.1:7700/mcp", "{url} {host:?}");
        }
        for url in ["", "0.0.0.0:7700", "http://", "http://0.0.0.0/mcp", "http://0.0.0.0:x/"] {
            assert_eq!(reachable(url, None), url);
        }
    }

    #[test]
    fn a_query_is_encoded() {
        let pairs = [("label", "a b=ü&c".to_owned()), ("limit", "3".to_owned())];
        assert_eq!(query(pairs), "label=a%20b%3D%C3%BC%26c&limit=3");
        assert_eq!(query([]), "");
    }
}
