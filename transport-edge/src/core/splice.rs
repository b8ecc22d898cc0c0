//! Replacing a few values in a body without parsing it again.

use super::jsonrpc::{Envelope, Field, Span};
use bytes::{BufMut as _, Bytes, BytesMut};
use smallvec::SmallVec;

/// Replace the bytes of `span` by `with`; an empty span inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What goes.
    pub span: Span,
    /// What comes.
    pub with: Bytes,
}

/// A few edits of one body, in any order, not overlapping. Inserts at one place keep their order.
pub type Edits = SmallVec<[Edit; 4]>;

impl Edit {
    /// Replaces the value of a field.
    pub fn replace(span: Span, with: impl Into<Bytes>) -> Self {
        Edit { span, with: with.into() }
    }

    /// Inserts `"key":value` as the first member of the object at `object`. `None` when there
    /// is no object there.
    pub fn insert(body: &[u8], object: Span, key: &str, value: &[u8]) -> Option<Self> {
        Edit::insert_all(body, object, &[(key, value)])
    }

    /// Inserts several members at the front of the object at `object`.
    pub fn insert_all(body: &[u8], object: Span, members: &[(&str, &[u8])]) -> Option<Self> {
        let inner = object.of(body).strip_prefix(b"{")?;
        let mut joined = join(members);
        let empty = inner.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
        if !empty && !joined.is_empty() {
            joined.push(b',');
        }
        let at = object.start + 1;
        Some(Edit { span: Span { start: at, end: at }, with: joined.into() })
    }

    /// Sets a member of `params._meta`, making `_meta` and `params` where they are missing.
    /// `field` is where the member is, if the scanner noted it. Use it once per body: two
    /// calls would each make their own `_meta`; see [`Edit::set_meta_all`].
    pub fn set_meta(body: &[u8], envelope: &Envelope, field: Field, key: &str, value: &[u8]) -> Option<Self> {
        match envelope.has(field) {
            true => Some(Edit::replace(envelope.span(field), Bytes::copy_from_slice(value))),
            false => Edit::set_meta_all(body, envelope, &[(key, value)]),
        }
    }

    /// Inserts members into `params._meta` that are not there yet.
    pub fn set_meta_all(body: &[u8], envelope: &Envelope, members: &[(&str, &[u8])]) -> Option<Self> {
        let joined = join(members);
        let wrap = |before: &[u8], after: &[u8]| [before, &joined, after].concat();
        if envelope.has(Field::Meta) {
            return Edit::insert_all(body, envelope.span(Field::Meta), members);
        }
        if envelope.is_object(body, Field::Params) {
            return Edit::insert(body, envelope.span(Field::Params), "_meta", &wrap(b"{", b"}"));
        }
        let params = wrap(b"{\"_meta\":{", b"}}");
        match envelope.has(Field::Params) {
            true => Some(Edit::replace(envelope.span(Field::Params), params)),
            false => Edit::insert(body, envelope.root, "params", &params),
        }
    }
}

fn join(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut joined = Vec::new();
    for (key, value) in members {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.push(b'"');
        joined.extend_from_slice(key.as_bytes());
        joined.extend_from_slice(b"\":");
        joined.extend_from_slice(value);
    }
    joined
}

/// The body with the edits applied; the body itself when there are none. An edit outside the
/// body or overlapping an earlier one is left out.
pub fn splice(body: &Bytes, edits: &[Edit]) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    let mut order: SmallVec<[&Edit; 8]> = edits.iter().collect();
    order.sort_by_key(|edit| edit.span.start);
    let grown: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = BytesMut::with_capacity(body.len() + grown);
    let mut from = 0;
    for edit in order {
        let (start, end) = (edit.span.start as usize, edit.span.end as usize);
        let Some(kept) = body.get(from..start).filter(|_| start <= end && end <= body.len()) else {
            continue;
        };
        out.put_slice(kept);
        out.put_slice(&edit.with);
        from = end;
    }
    out.put_slice(body.get(from..).unwrap_or_default());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::jsonrpc::scan;

    fn edited(body: &'static str, make: impl Fn(&[u8], &Envelope) -> Option<Edit>) -> serde_json::Value {
        let body = Bytes::from_static(body.as_bytes());
        let envelope = scan(&body).unwrap();
        let out = splice(&body, &[make(&body, &envelope).unwrap()]);
        scan(&out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn meta_is_made_wherever_it_is_missing() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{ }}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"b":2}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":2}}}"#,
        ] {
            let value = edited(body, |raw, envelope| {
                Edit::set_meta(raw, envelope, Field::MetaProgressToken, "progressToken", b"7")
            });
            assert_eq!(value["params"]["_meta"]["progressToken"], 7, "{body}");
        }
    }

    #[test]
    fn edits_apply_in_order_of_place_and_bad_ones_are_left_out() {
        let body = Bytes::from_static(b"0123456789");
        let edit = |start, end, with: &'static str| Edit::replace(Span { start, end }, with);
        let edits = [
            edit(8, 9, "H"),
            edit(1, 3, "b"),
            edit(2, 4, "overlaps"),
            edit(9, 99, "outside"),
            edit(5, 5, "+"),
        ];
        assert_eq!(splice(&body, &edits), "0b34+567H9");
        assert_eq!(splice(&body, &[]), body);
    }
}
