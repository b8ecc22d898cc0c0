//! What may be registered. Every refusal names the field, what it has and what is allowed.

use crate::core::{
    counter,
    key::{self, Parts},
};
use proto::{
    ids::{NameError, check_name},
    registry::{BackendSpec, Durability, Kind, Registration, backend_spec::Transport, registration::Spec},
};
use std::time::Duration;

/// Longest registration in encoded bytes.
pub(crate) const BYTES_MAX: usize = 64 << 10;
/// Most labels of a registration.
pub(crate) const LABELS_MAX: usize = 64;
/// Longest label key or value, and longest owner, in bytes.
pub(crate) const TEXT_MAX: usize = 1024;
/// Longest request id in bytes.
pub(crate) const REQUEST_ID_MAX: usize = 128;
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);
pub(crate) const TTL_MAX: Duration = Duration::from_secs(3600);

/// Why a registration is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("registration has {bytes} bytes; at most {BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
    #[error("registration has {count} labels; at most {LABELS_MAX} are allowed")]
    TooManyLabels { count: usize },
    #[error("{field} has {bytes} bytes; at most {max} are allowed")]
    TooLong { field: &'static str, bytes: usize, max: usize },
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} is {found:?}; {allowed}")]
    Value { field: &'static str, found: String, allowed: &'static str },
    #[error("ttl_ms is {found_ms}; an ephemeral registration lives 1000 to 3600000 ms between renewals")]
    Ttl { found_ms: u64 },
}

impl Malformed {
    /// A value that is not allowed, cut to a length that fits a message.
    pub(crate) fn value(field: &'static str, found: &str, allowed: &'static str) -> Self {
        Malformed::Value { field, found: found.chars().take(200).collect(), allowed }
    }

    /// The field of the request that is wrong.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Malformed::Name(_) => "name",
            Malformed::TooLarge { .. } => "registration",
            Malformed::TooManyLabels { .. } => "labels",
            Malformed::Ttl { .. } => "ttl_ms",
            Malformed::TooLong { field, .. }
            | Malformed::Missing { field }
            | Malformed::Value { field, .. } => field,
        }
    }
}

/// Checks a registration as a client or a peer sends it.
pub(crate) fn check(registration: &Registration) -> Result<(), Malformed> {
    check_own_key(registration)?;
    let bytes = prost::Message::encoded_len(registration);
    if bytes > BYTES_MAX {
        return Err(Malformed::TooLarge { bytes });
    }
    if registration.owner.is_empty() {
        return Err(Malformed::Missing { field: "owner" });
    }
    within("owner", &registration.owner, TEXT_MAX)?;
    check_labels(registration)?;
    check_spec(registration)?;
    check_durability(registration)
}

/// A lease's time to live.
pub(crate) fn check_ttl(ttl_ms: u64) -> Result<Duration, Malformed> {
    let ttl = Duration::from_millis(ttl_ms);
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(ttl) } else { Err(Malformed::Ttl { found_ms: ttl_ms }) }
}

pub(crate) fn within(field: &'static str, text: &str, max: usize) -> Result<(), Malformed> {
    if text.len() > max { Err(Malformed::TooLong { field, bytes: text.len(), max }) } else { Ok(()) }
}

/// A name; of a property or a counter the key of its kind and owner.
fn check_own_key(registration: &Registration) -> Result<(), Malformed> {
    let kind = registration.kind();
    if key::prefix(kind).is_empty() {
        return Ok(check_name(&registration.name)?);
    }
    match key::parts(&registration.name) {
        Some(Parts { kind: of, name, owner }) if of == kind && owner == registration.owner => {
            key::key(kind, name, owner).map(drop)
        }
        _ => Err(Malformed::value("name", &registration.name, "it must be the key of its kind and owner")),
    }
}

fn check_labels(registration: &Registration) -> Result<(), Malformed> {
    let count = registration.labels.len();
    if count > LABELS_MAX {
        return Err(Malformed::TooManyLabels { count });
    }
    for (key, value) in &registration.labels {
        if key.is_empty() {
            return Err(Malformed::Missing { field: "key of a label" });
        }
        within("key of a label", key, TEXT_MAX)?;
        within("value of a label", value, TEXT_MAX)?;
    }
    Ok(())
}

fn check_spec(registration: &Registration) -> Result<(), Malformed> {
    match (registration.kind(), &registration.spec) {
        (Kind::Unspecified, _) => Err(Malformed::Missing { field: "kind" }),
        (Kind::Backend, Some(Spec::Backend(backend))) => check_backend(backend),
        (Kind::Backend, _) => Err(Malformed::Missing { field: "backend" }),
        (Kind::Counter, Some(Spec::Counter(found))) => counter::check(found),
        (Kind::Counter, _) => Err(Malformed::Missing { field: "counter" }),
        (_, Some(Spec::Backend(_))) => {
            Err(Malformed::value("backend", "a backend spec", "only kind backend has one"))
        }
        (_, Some(Spec::Counter(_))) => {
            Err(Malformed::value("counter", "a counter", "only kind counter has one"))
        }
        (Kind::Agent | Kind::Worker | Kind::Property, _) => Ok(()),
    }
}

fn check_backend(backend: &BackendSpec) -> Result<(), Malformed> {
    match &backend.transport {
        None => return Err(Malformed::Missing { field: "transport" }),
        Some(Transport::Stdio(stdio)) if stdio.command.is_empty() => {
            return Err(Malformed::Missing { field: "command" });
        }
        Some(Transport::Http(http)) if !is_http(&http.url) => {
            return Err(Malformed::value("url", &http.url, "http:// or https:// and a host are needed"));
        }
        Some(_) => {}
    }
    match backend.strategy.as_str() {
        "" | "per_connection" | "pooled" => Ok(()),
        other => Err(Malformed::value("strategy", other, "per_connection, pooled or empty are allowed")),
    }
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn check_durability(registration: &Registration) -> Result<(), Malformed> {
    match registration.durability() {
        Durability::Unspecified => Err(Malformed::Missing { field: "durability" }),
        Durability::Durable => Ok(()),
        Durability::Ephemeral => check_ttl(registration.ttl_ms).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::registry::{HttpTransport, StdioTransport};

    fn backend(transport: Transport) -> Registration {
        let spec = BackendSpec { transport: Some(transport), ..Default::default() };
        Registration {
            name: "time".into(),
            owner: "operator".into(),
            kind: Kind::Backend.into(),
            durability: Durability::Durable.into(),
            spec: Some(Spec::Backend(spec.into())),
            ..Default::default()
        }
    }

    fn stdio() -> Registration {
        backend(Transport::Stdio(StdioTransport { command: "time".into(), ..Default::default() }))
    }

    fn refusal(change: impl FnOnce(&mut Registration)) -> String {
        let mut registration = stdio();
        change(&mut registration);
        check(&registration).unwrap_err().to_string()
    }

    #[test]
    fn a_good_one_passes() {
        assert_eq!(check(&stdio()), Ok(()));
        let url = "https://example.org/mcp".into();
        assert_eq!(check(&backend(Transport::Http(HttpTransport { url, ..Default::default() }))), Ok(()));
    }

    #[test]
    fn each_refusal_is_precise() {
        assert!(refusal(|r| r.name = "a b".into()).contains("' ' at position 1"));
        assert_eq!(refusal(|r| r.owner.clear()), "owner is missing");
        assert_eq!(refusal(|r| r.kind = 0), "kind is missing");
        assert_eq!(refusal(|r| r.durability = 0), "durability is missing");
        assert_eq!(refusal(|r| r.spec = None), "backend is missing");
        assert!(refusal(|r| r.durability = Durability::Ephemeral.into()).contains("ttl_ms is 0"));
        let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(refusal(|r| r.labels = labels), "registration has 65 labels; at most 64 are allowed");
        let args = vec!["x".repeat(70_000)];
        let large = Transport::Stdio(StdioTransport { command: "a".into(), args, ..Default::default() });
        assert!(check(&backend(large)).unwrap_err().to_string().contains("at most 65536 are allowed"));
        let ftp = Transport::Http(HttpTransport { url: "ftp://x".into(), ..Default::default() });
        assert!(check(&backend(ftp)).unwrap_err().to_string().starts_with("url is \"ftp://x\""));
    }
}
