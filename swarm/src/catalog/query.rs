//! What a client asks a list for. Pure.

use super::{
    cursor::Place,
    entry::{Maker, full_name, registered_at, version},
};
use jiff::Timestamp;
use proto::registry::Registration;
use serde::Deserialize;

/// Entries on a page when nothing else is asked for, and at most.
const LIMIT_DEFAULT: usize = 30;
const LIMIT_MAX: usize = 100;
/// Longest search text and version, in bytes.
const TEXT_MAX: usize = 255;

/// The query string as it came: every value is checked here and has its own error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    cursor: Option<String>,
    limit: Option<String>,
    search: Option<String>,
    updated_since: Option<String>,
    version: Option<String>,
    include_deleted: Option<String>,
}

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    /// Pages go on where they ended, whatever came or went meanwhile.
    pub(super) from: Option<Place>,
    pub(super) limit: usize,
    /// In lower case.
    search: String,
    updated_since: Option<Timestamp>,
    /// `None` is the latest, which is all there is.
    version: Option<String>,
}

impl Raw {
    /// The query, or which value is wrong and what it should be.
    pub(super) fn check(self) -> Result<Query, String> {
        self.include_deleted.map(|flag| checked_flag(&flag)).transpose()?;
        Ok(Query {
            from: given(self.cursor).map(|cursor| Place::of(&cursor)).transpose()?,
            limit: self.limit.map_or(Ok(LIMIT_DEFAULT), |limit| checked_limit(&limit))?,
            search: checked_text("search", self.search)?.unwrap_or_default().to_lowercase(),
            updated_since: given(self.updated_since).map(|time| checked_time(&time)).transpose()?,
            version: checked_text("version", self.version)?.filter(|version| version != "latest"),
        })
    }
}

/// An empty value asks for nothing.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn checked_text(key: &str, value: Option<String>) -> Result<Option<String>, String> {
    match given(value) {
        Some(text) if text.len() > TEXT_MAX => Err(format!("{key} is longer than {TEXT_MAX} bytes")),
        text => Ok(text),
    }
}

fn checked_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("invalid limit {text:?}: a number from 1 to {LIMIT_MAX} is meant"))
}

fn checked_time(text: &str) -> Result<Timestamp, String> {
    let example = "a time of RFC 3339 is meant, such as 2026-01-31T12:00:00Z";
    text.parse().map_err(|_| format!("invalid updated_since {text:?}: {example}"))
}

/// Nothing is kept of what was deleted, so both answers are the same.
fn checked_flag(text: &str) -> Result<(), String> {
    match text {
        "true" | "false" => Ok(()),
        _ => Err(format!("invalid include_deleted {text:?}: true or false is meant")),
    }
}

impl Query {
    /// Whether every backend passes.
    pub(super) fn takes_all(&self) -> bool {
        self.search.is_empty() && self.updated_since.is_none() && self.version.is_none()
    }

    /// Whether a backend passes, wherever it stands.
    pub(super) fn wants(&self, maker: &Maker<'_>, registration: &Registration) -> bool {
        let name = full_name(maker.config, &registration.name).to_lowercase();
        name.contains(&self.search)
            && self.updated_since.is_none_or(|since| registered_at(registration) >= since)
            && self.version.as_ref().is_none_or(|wanted| *wanted == version(registration))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Config, *};

    fn raw(pairs: &[(&str, &str)]) -> Raw {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        serde_json::from_value(serde_json::Value::Object(object.collect())).expect("a query")
    }

    fn query(pairs: &[(&str, &str)]) -> Query {
        raw(pairs).check().expect("valid")
    }

    fn registrations(names: &[&str]) -> Vec<Registration> {
        let registration = |(at, name): (usize, &&str)| Registration {
            name: (*name).to_owned(),
            version: at as u64 + 1,
            registered_at_ms: (at as u64 + 1) * 1000,
            ..Registration::default()
        };
        names.iter().enumerate().map(registration).collect()
    }

    fn names<'a>(query: &Query, registrations: &'a [Registration]) -> Vec<&'a str> {
        let config = Config::default();
        let maker = Maker { config: &config, edge: "http://h/mcp" };
        let wanted = registrations.iter().filter(|registration| query.wants(&maker, registration));
        wanted.map(|registration| registration.name.as_str()).collect()
    }

    #[test]
    fn every_bad_value_is_named_with_what_is_meant() {
        let refusal = |key: &str, value: &str| raw(&[(key, value)]).check().expect_err("refused");
        for limit in ["0", "101", "-1", "ten", "", "1.5", "99999999999999999999"] {
            let words = format!("invalid limit {limit:?}: a number from 1 to 100 is meant");
            assert_eq!(refusal("limit", limit), words);
        }
        assert!(refusal("cursor", "x").starts_with("invalid cursor: "));
        assert_eq!(
            refusal("updated_since", "yesterday"),
            "invalid updated_since \"yesterday\": a time of RFC 3339 is meant, such as 2026-01-31T12:00:00Z"
        );
        assert_eq!(refusal("include_deleted", "1"), "invalid include_deleted \"1\": true or false is meant");
        assert_eq!(refusal("search", &"a".repeat(256)), "search is longer than 255 bytes");
    }

    #[test]
    fn search_is_a_part_of_the_whole_name_in_any_case() {
        let all = registrations(&["Git", "time"]);
        assert_eq!(names(&query(&[("search", "gIT")]), &all), ["Git"]);
        assert_eq!(names(&query(&[("search", "swarm/t")]), &all), ["time"]);
        assert!(names(&query(&[("search", "nope")]), &all).is_empty());
        assert_eq!(names(&query(&[("search", "")]), &all).len(), 2);
    }

    #[test]
    fn updated_since_takes_what_changed_at_that_time_or_later() {
        let all = registrations(&["a", "b", "c"]);
        let since = |time: &str| names(&query(&[("updated_since", time)]), &all);
        assert_eq!(since("1970-01-01T00:00:02Z"), ["b", "c"]);
        assert_eq!(since("1970-01-01T02:00:02.001+02:00"), ["c"]);
        assert!(since("2030-01-01T00:00:00Z").is_empty());
    }

    #[test]
    fn an_exact_version_or_the_latest() {
        let all = registrations(&["a", "b"]);
        assert_eq!(names(&query(&[("version", "1.0.2")]), &all), ["b"]);
        assert_eq!(names(&query(&[("version", "latest")]), &all).len(), 2);
        assert!(names(&query(&[("version", "2.0.0")]), &all).is_empty());
    }
}
