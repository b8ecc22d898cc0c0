//! `GET /api/v1/registry?kind&prefix&label&tool&transport&zone&limit&page_token`: from its query to
//! what the registry is asked, page by page.

use crate::api::listing::{kind, label, limit};
use proto::registry::Kind;
use registry_client::{Error, Filter, Page, RegistryClient};
use std::collections::BTreeSet;

/// Every key of the query; `label` may come more than once.
const KEYS: [&str; 8] = ["kind", "prefix", "label", "tool", "transport", "zone", "limit", "page_token"];
/// Registrations in one answer of the registry.
const PAGE_SIZE: u32 = 1000;

/// What is asked for; the default is every backend.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    filter: Filter,
    limit: Option<u32>,
    page_token: String,
}

impl Default for Asked {
    fn default() -> Self {
        // What a person types wrongly is told: a label that nothing has is no filter.
        let filter = Filter { kind: Kind::Backend, known_labels: true, ..Filter::default() };
        Asked { filter, limit: None, page_token: String::new() }
    }
}

impl Asked {
    /// What a query asks for, or which part of it makes no sense. Values that only the registry can
    /// judge are left to it.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Result<Asked, String> {
        let (mut asked, mut seen) = (Asked::default(), BTreeSet::new());
        for (key, value) in pairs {
            asked.add(&key, value)?;
            if key != "label" && !seen.insert(key.clone()) {
                return Err(format!("{key} is given twice"));
            }
        }
        Ok(asked)
    }

    fn add(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "kind" => self.filter.kind = kind(&value)?,
            "prefix" => self.filter.name_prefix = value,
            "label" => self.add_label(&value)?,
            "tool" => self.filter.tool = value,
            "transport" => self.filter.transport = value,
            "zone" => self.filter.zone = value,
            "limit" => self.limit = Some(limit(&value)?),
            "page_token" => self.page_token = value,
            _ => return Err(format!("nothing is asked by {key:?}; known are {}", KEYS.join(", "))),
        }
        Ok(())
    }

    fn add_label(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = label(text)?;
        match self.filter.labels.insert(key.to_owned(), value.to_owned()) {
            Some(other) if other != value => {
                Err(format!("label {key:?} cannot be both {other:?} and {value:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What passes, up to the limit, and where the rest begins.
    pub(super) async fn read(self, registry: &RegistryClient) -> Result<Page, Error> {
        let (mut found, mut token) = (Vec::new(), self.page_token);
        loop {
            let left = self.limit.map_or(PAGE_SIZE, |limit| limit.saturating_sub(count(&found)));
            let page = registry.page(&self.filter, left, token).await?;
            found.extend(page.registrations);
            let full = self.limit.is_some_and(|limit| count(&found) >= limit);
            match page.next {
                Some(next) if !full => token = next,
                next => return Ok(Page { registrations: found, next }),
            }
        }
    }
}

fn count<T>(found: &[T]) -> u32 {
    u32::try_from(found.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Asked, String> {
        Asked::of(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_asked_is_every_backend() {
        let all = asked(&[]).expect("valid");
        assert_eq!((all.filter.kind, all.limit), (Kind::Backend, None));
        assert!(all.filter.known_labels && all.filter.labels.is_empty());
    }

    #[test]
    fn every_key_has_its_place_in_the_filter() {
        let pairs = [
            ("kind", "worker"),
            ("prefix", "t"),
            ("label", "a=b"),
            ("label", "c="),
            ("tool", "now"),
            ("transport", "http"),
            ("zone", "z1"),
            ("limit", "7"),
            ("page_token", "0a"),
        ];
        let labels = [("a", "b"), ("c", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let filter = Filter {
            kind: Kind::Worker,
            name_prefix: "t".into(),
            labels: labels.into(),
            tool: "now".into(),
            transport: "http".into(),
            zone: "z1".into(),
            known_labels: true,
        };
        let wanted = Asked { filter, limit: Some(7), page_token: "0a".into() };
        assert_eq!(asked(&pairs), Ok(wanted));
        assert!(pairs.iter().all(|(key, _)| KEYS.contains(key)));
    }

    #[test]
    fn a_query_that_makes_no_sense_is_named() {
        let refusal = |pairs: &[(&str, &str)]| asked(pairs).expect_err("refused");
        assert!(refusal(&[("kind", "x")]).starts_with("kind is \"x\"; "));
        assert!(refusal(&[("label", "x")]).starts_with("label is \"x\"; "));
        assert!(refusal(&[("limit", "x")]).starts_with("limit is \"x\"; "));
        assert!(
            refusal(&[("labels", "x=y")]).starts_with("nothing is asked by \"labels\"; known are kind, ")
        );
        assert_eq!(refusal(&[("zone", "a"), ("zone", "a")]), "zone is given twice");
        let labels = [("label", "a=b"), ("label", "a=c")];
        assert_eq!(refusal(&labels), "label \"a\" cannot be both \"b\" and \"c\"");
        assert!(asked(&[("label", "a=b"), ("label", "a=b")]).is_ok());
    }
}
