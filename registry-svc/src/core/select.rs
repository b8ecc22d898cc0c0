//! Which registrations a listing asks for.

use crate::core::{
    check::{LABELS_MAX, Malformed, TEXT_MAX, within},
    cursor, key,
};
use proto::{
    ids::{NAME_MAX, check_name},
    registry::{BackendSpec, Kind, ListRequest, Registration, backend_spec::Transport, registration::Spec},
};

/// A filter that has been checked.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    kind: Kind,
    request: ListRequest,
}

impl Selector {
    pub(crate) fn new(request: ListRequest) -> Result<Self, Malformed> {
        let kind = check_kind(request.kind)?;
        check_prefix(&request.name_prefix)?;
        check_labels(&request)?;
        if !request.tool.is_empty() {
            within("tool", &request.tool, NAME_MAX)?;
        }
        within("zone", &request.zone, TEXT_MAX)?;
        match request.transport.as_str() {
            "" | "stdio" | "http" => Ok(Self { kind, request }),
            other => Err(Malformed::value("transport", other, "stdio, http or empty for any are allowed")),
        }
    }

    /// What the keys that are asked for start with.
    pub(crate) fn prefix(&self) -> String {
        format!("{}{}", key::prefix(self.kind), self.request.name_prefix)
    }

    /// Differs for requests that page tokens must not go between.
    pub(crate) fn scope(&self) -> u64 {
        let ListRequest { name_prefix, labels, tool, transport, zone, .. } = &self.request;
        let fixed = [self.kind.as_str_name(), name_prefix, tool, transport, zone];
        let labels = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        cursor::scope(fixed.into_iter().chain(labels))
    }

    /// A tool that some edge must report.
    pub(crate) fn tool(&self) -> Option<&str> {
        Some(self.request.tool.as_str()).filter(|tool| !tool.is_empty())
    }

    /// Label keys that must be known.
    pub(crate) fn known_labels(&self) -> impl Iterator<Item = &str> {
        let keys = self.request.labels.keys().map(String::as_str);
        keys.filter(|_| self.request.known_labels)
    }

    /// Whether a registration passes, but for its tools.
    pub(crate) fn keeps(&self, registration: &Registration) -> bool {
        let of_kind = match self.kind {
            Kind::Unspecified => !key::is_shared(&registration.name),
            kind => registration.kind() == kind,
        };
        let has = |(key, value): (&String, &String)| registration.labels.get(key) == Some(value);
        of_kind && self.request.labels.iter().all(has) && self.keeps_backend(registration)
    }

    fn keeps_backend(&self, registration: &Registration) -> bool {
        let ListRequest { transport, zone, .. } = &self.request;
        if transport.is_empty() && zone.is_empty() {
            return true;
        }
        let Some(Spec::Backend(backend)) = &registration.spec else {
            return false;
        };
        let of_zone = zone.is_empty() || backend.zone == *zone;
        of_zone && (transport.is_empty() || transport_of(backend) == transport)
    }
}

fn transport_of(backend: &BackendSpec) -> &'static str {
    match backend.transport {
        Some(Transport::Stdio(_)) => "stdio",
        Some(Transport::Http(_)) => "http",
        None => "",
    }
}

fn check_kind(kind: i32) -> Result<Kind, Malformed> {
    Kind::try_from(kind).map_err(|_| Malformed::value("kind", &kind.to_string(), "1 to 5, or 0 for any name"))
}

fn check_prefix(prefix: &str) -> Result<(), Malformed> {
    if prefix.is_empty() { Ok(()) } else { Ok(check_name(prefix)?) }
}

fn check_labels(request: &ListRequest) -> Result<(), Malformed> {
    let count = request.labels.len();
    if count > LABELS_MAX {
        return Err(Malformed::value("labels", &count.to_string(), "at most 64 can be asked for"));
    }
    for (key, value) in &request.labels {
        if key.is_empty() {
            return Err(Malformed::Missing { field: "key of a label" });
        }
        within("key of a label", key, TEXT_MAX)?;
        within("value of a label", value, TEXT_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::registry::{HttpTransport, StdioTransport};

    fn backend(transport: Transport, zone: &str) -> Registration {
        let spec = BackendSpec { transport: Some(transport), zone: zone.into(), ..Default::default() };
        Registration {
            name: "time".into(),
            kind: Kind::Backend.into(),
            labels: [("team".into(), "a".into())].into(),
            spec: Some(Spec::Backend(spec.into())),
            ..Default::default()
        }
    }

    #[test]
    fn each_part_of_a_filter_keeps_out_what_differs() {
        let stdio = backend(Transport::Stdio(StdioTransport::default()), "z1");
        let http = backend(Transport::Http(HttpTransport::default()), "z2");
        let worker = Registration { name: "w".into(), kind: Kind::Worker.into(), ..Default::default() };
        let shared =
            Registration { name: "~p:w:o".into(), kind: Kind::Property.into(), ..Default::default() };
        let kept = |request: ListRequest| {
            let selector = Selector::new(request).unwrap();
            [&stdio, &http, &worker, &shared].map(|registration| selector.keeps(registration))
        };
        let request = ListRequest::default;
        assert_eq!(kept(request()), [true, true, true, false], "properties only when asked for");
        assert_eq!(
            kept(ListRequest { kind: Kind::Property.into(), ..request() }),
            [false, false, false, true]
        );
        assert_eq!(kept(ListRequest { kind: Kind::Backend.into(), ..request() }), [true, true, false, false]);
        assert_eq!(kept(ListRequest { transport: "stdio".into(), ..request() }), [true, false, false, false]);
        assert_eq!(kept(ListRequest { zone: "z2".into(), ..request() }), [false, true, false, false]);
        let labels = |value: &str| [("team".to_owned(), value.to_owned())].into();
        assert_eq!(kept(ListRequest { labels: labels("a"), ..request() }), [true, true, false, false]);
        assert_eq!(kept(ListRequest { labels: labels("b"), ..request() }), [false; 4]);
    }

    #[test]
    fn each_malformed_part_is_told() {
        let refused = |request: ListRequest| Selector::new(request).unwrap_err().to_string();
        let request = ListRequest::default;
        let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert!(refused(ListRequest { labels, ..request() }).contains("labels is \"65\"; at most 64"));
        let nameless = [(String::new(), "a".to_owned())].into();
        assert!(refused(ListRequest { labels: nameless, ..request() }).contains("key of a label is missing"));
        let long = "x".repeat(1025);
        assert!(refused(ListRequest { zone: long.clone(), ..request() }).contains("zone has 1025 bytes"));
        assert!(
            refused(ListRequest { tool: long, ..request() }).contains("tool has 1025 bytes; at most 128")
        );
        assert!(
            refused(ListRequest { transport: "tcp".into(), ..request() }).contains("transport is \"tcp\"")
        );
        assert!(refused(ListRequest { kind: 9, ..request() }).contains("kind is \"9\""));
        assert!(
            refused(ListRequest { name_prefix: "a b".into(), ..request() }).contains("' ' at position 1")
        );
    }

    #[test]
    fn a_scope_tells_filters_apart_and_not_pages() {
        let scope = |request: ListRequest| Selector::new(request).unwrap().scope();
        let request = ListRequest::default;
        let all = scope(request());
        assert_eq!(scope(ListRequest { page_size: 7, page_token: "x".into(), ..request() }), all);
        assert_ne!(scope(ListRequest { zone: "z".into(), ..request() }), all);
        assert_ne!(
            scope(ListRequest { zone: "z".into(), ..request() }),
            scope(ListRequest { tool: "z".into(), ..request() })
        );
    }
}
