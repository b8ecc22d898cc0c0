//! The words in the query of `GET /api/v1/registry`, read alike by both ends. Pure.

use proto::registry::Kind;

/// Most registrations that a limit may ask for.
const LIMIT_MAX: u32 = 1000;
const KINDS: [(&str, Kind); 6] = [
    ("backend", Kind::Backend),
    ("agent", Kind::Agent),
    ("worker", Kind::Worker),
    ("property", Kind::Property),
    ("counter", Kind::Counter),
    ("any", Kind::Unspecified),
];

/// The kind of a word; "any" is every name, and so neither properties nor counters.
pub(crate) fn kind(word: &str) -> Result<Kind, String> {
    let found = KINDS.iter().find(|(known, _)| *known == word);
    let meant = "backend, agent, worker, property, counter or any are meant";
    found.map(|(_, kind)| *kind).ok_or_else(|| format!("kind is {word:?}; {meant}"))
}

/// The word of a kind.
pub(crate) fn word(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("any", |(word, _)| *word)
}

/// `KEY=VALUE`; the value may be empty and have more of `=`.
pub(crate) fn label(text: &str) -> Result<(&str, &str), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    parts.ok_or_else(|| format!("label is {text:?}; KEY=VALUE is meant"))
}

/// How many at most.
pub(crate) fn limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("limit is {text:?}; 1 to {LIMIT_MAX} is meant"))
}

/// A word for [`kind`], checked.
pub(crate) fn kind_word(word: &str) -> Result<String, String> {
    kind(word).map(|_| word.to_owned())
}

/// Text for [`label`], checked.
pub(crate) fn label_words(text: &str) -> Result<String, String> {
    label(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_a_word_each() {
        for (word, kind) in KINDS {
            assert_eq!((super::kind(word), super::word(kind)), (Ok(kind), word));
        }
        assert!(kind("Backend").is_err() && kind("").is_err());
    }

    #[test]
    fn a_label_is_split_at_its_first_equals_sign() {
        assert_eq!(label("a=b"), Ok(("a", "b")));
        assert_eq!(label("a=b=c"), Ok(("a", "b=c")));
        assert_eq!(label("a="), Ok(("a", "")));
        for bad in ["", "a", "=b"] {
            assert_eq!(label(bad), Err(format!("label is {bad:?}; KEY=VALUE is meant")));
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        assert_eq!((limit("1"), limit("1000")), (Ok(1), Ok(1000)));
        for bad in ["0", "1001", "-1", "", "ten", "99999999999"] {
            assert_eq!(limit(bad), Err(format!("limit is {bad:?}; 1 to 1000 is meant")));
        }
    }
}
