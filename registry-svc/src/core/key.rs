//! Keys of what many owners hold. A unique name is its own key. A property's is `~p:NAME:OWNER`
//! and a counter's `~c:NAME:OWNER`: they go through shards, leases, merges, the disk and peers
//! as names do, and cannot meet one, for no name has a `~`. They sort after all names, those of
//! one name together in order of owner.

use crate::core::check::{Malformed, within};
use proto::{
    ids::check_name,
    registry::{Kind, Registration, Removed, registration::Spec},
};

/// Longest owner of a property or a counter in bytes.
pub(crate) const OWNER_MAX: usize = 120;
const SHARED: char = '~';

/// The parts of a property's or a counter's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) owner: &'a str,
}

/// Whether a key is of a property or a counter.
pub(crate) fn is_shared(key: &str) -> bool {
    key.starts_with(SHARED)
}

/// Whether names of a kind are shared.
pub(crate) fn is_shared_kind(kind: i32) -> bool {
    Kind::try_from(kind).is_ok_and(|kind| !prefix(kind).is_empty())
}

/// What the keys of a kind start with, before the name.
pub(crate) fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Property => "~p:",
        Kind::Counter => "~c:",
        Kind::Unspecified | Kind::Backend | Kind::Agent | Kind::Worker => "",
    }
}

/// The key under which a name is kept; checked.
pub(crate) fn key(kind: Kind, name: &str, owner: &str) -> Result<String, Malformed> {
    check_name(name)?;
    let prefix = prefix(kind);
    if prefix.is_empty() {
        return Ok(name.to_owned());
    }
    if owner.is_empty() {
        return Err(Malformed::Missing { field: "owner" });
    }
    within("owner", owner, OWNER_MAX)?;
    Ok(format!("{prefix}{name}:{owner}"))
}

/// Takes a property's or a counter's key apart.
pub(crate) fn parts(key: &str) -> Option<Parts<'_>> {
    let of = |kind| key.strip_prefix(prefix(kind)).map(|rest| (kind, rest));
    let (kind, rest) = of(Kind::Property).or_else(|| of(Kind::Counter))?;
    let (name, owner) = rest.split_once(':')?;
    Some(Parts { kind, name, owner })
}

/// Checks a key as a peer sends it.
pub(crate) fn check_key(found: &str) -> Result<(), Malformed> {
    match parts(found) {
        Some(Parts { kind, name, owner }) => key(kind, name, owner).map(drop),
        None => Ok(check_name(found)?),
    }
}

/// A key in words: `"time"`, or `"jobs" of "worker/1"`.
pub(crate) fn told(key: &str) -> String {
    match parts(key) {
        Some(Parts { name, owner, .. }) => format!("{name:?} of {owner:?}"),
        None => format!("{key:?}"),
    }
}

/// The name that people know a key by.
pub(crate) fn name_of(key: &str) -> &str {
    parts(key).map_or(key, |parts| parts.name)
}

/// A registration as clients see it.
pub(crate) fn shown(mut registration: Registration) -> Registration {
    if let Some(parts) = parts(&registration.name) {
        registration.name = parts.name.to_owned();
    }
    if let Some(Spec::Counter(counter)) = &mut registration.spec {
        counter.recent.clear();
    }
    registration
}

/// A removal as clients see it.
pub(crate) fn shown_removal(mut removed: Removed) -> Removed {
    let told =
        parts(&removed.name).map(|Parts { kind, name, owner }| (kind, name.to_owned(), owner.to_owned()));
    if let Some((kind, name, owner)) = told {
        (removed.name, removed.owner, removed.kind) = (name, owner, kind.into());
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_key_comes_apart_as_it_was_put_together_and_meets_no_name() {
        let shared = key(Kind::Counter, "jobs", "worker/1:a~b").unwrap();
        let parts = parts(&shared).unwrap();
        assert_eq!((parts.kind, parts.name, parts.owner), (Kind::Counter, "jobs", "worker/1:a~b"));
        assert_eq!(key(Kind::Worker, "jobs", "worker/1").unwrap(), "jobs");
        assert!(is_shared(&shared) && check_name(&shared).is_err() && check_key(&shared).is_ok());
        assert!("zzz" < shared.as_str(), "after all names");
        assert_eq!((told(&shared), told("jobs")), (r#""jobs" of "worker/1:a~b""#.into(), r#""jobs""#.into()));
    }

    #[test]
    fn a_malformed_key_is_told() {
        let refused = |kind, name: &str, owner: &str| key(kind, name, owner).unwrap_err().to_string();
        assert_eq!(refused(Kind::Property, "jobs", ""), "owner is missing");
        assert!(
            refused(Kind::Property, "jobs", &"o".repeat(121)).contains("owner has 121 bytes; at most 120")
        );
        assert!(refused(Kind::Property, "a:b", "o").contains("':' at position 1"));
        for broken in ["~p:jobs", "~p:jobs:", "~x:jobs:o", "~p::o", "a:b"] {
            assert!(check_key(broken).is_err(), "{broken}");
        }
    }
}
