//! Subjects and patterns, as NATS defines them: tokens between dots, `*` one token, `>` the rest.

use super::BusError;

/// Longest subject in bytes.
const SUBJECT_MAX: usize = 255;

/// Accepts a subject to publish on: no empty token, no white space, no wildcard.
pub fn check_subject(subject: &str) -> Result<(), BusError> {
    check(subject, |token, _| token != "*" && token != ">")
}

/// Accepts a pattern: `*` as a whole token anywhere, `>` as the last token.
pub fn check_pattern(pattern: &str) -> Result<(), BusError> {
    check(pattern, |token, last| token != ">" || last)
}

fn check(subject: &str, allowed: impl Fn(&str, bool) -> bool) -> Result<(), BusError> {
    let count = subject.split('.').count();
    let token_ok = |(index, token): (usize, &str)| {
        !token.is_empty()
            && !token.chars().any(|c| c.is_whitespace() || c.is_control())
            && allowed(token, index + 1 == count)
    };
    if subject.len() <= SUBJECT_MAX && subject.split('.').enumerate().all(token_ok) {
        return Ok(());
    }
    Err(BusError::InvalidSubject(subject.chars().take(SUBJECT_MAX).collect()))
}

/// Whether a pattern covers a subject.
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_token_or_the_rest() {
        assert!(matches("a.*.c", "a.b.c"));
        assert!(!matches("a.*.c", "a.b.b.c"));
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(!matches("a.b", "a.b.c"));
        assert!(!matches("a.b.c", "a.b"));
    }

    #[test]
    fn a_subject_has_no_wildcards_and_no_empty_tokens() {
        for bad in ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "a\n"] {
            assert!(check_subject(bad).is_err(), "{bad:?}");
        }
        assert!(check_subject("a.b-c._INBOX.1").is_ok());
        assert!(check_pattern("a.*.>").is_ok());
        assert!(check_pattern("a.>.b").is_err());
    }
}
