//! Page tokens: a place in the order of names, bound to what was asked. A name's place never
//! moves, so a token stays good whatever comes and goes between two pages.

use std::fmt::Write as _;

const FORMAT: u8 = 1;
// Format, scope, checksum.
const HEAD: usize = 17;
const SEED: u64 = u64::from_le_bytes(*b"swarmreg");

/// Why a page token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCursor {
    #[error("page token is not one that was given out")]
    Unknown,
    #[error("page token is of format {found}; this instance reads {FORMAT}, start again at the first page")]
    Format { found: u8 },
    #[error("page token belongs to another request; only page_size may differ from page to page")]
    OtherRequest,
}

/// A token that goes on after a key, for requests of one scope.
pub(crate) fn encode(scope: u64, after: &str) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend(scope.to_le_bytes());
    bytes.extend(checksum(scope, after));
    bytes.extend(after.bytes());
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}

/// Where a token goes on.
pub(crate) fn decode(scope: u64, token: &str) -> Result<String, BadCursor> {
    let bytes = from_hex(token).ok_or(BadCursor::Unknown)?;
    let (head, after) = bytes.split_at_checked(HEAD).ok_or(BadCursor::Unknown)?;
    let format = head.first().copied().unwrap_or_default();
    if format != FORMAT {
        return Err(BadCursor::Format { found: format });
    }
    let after = std::str::from_utf8(after).map_err(|_| BadCursor::Unknown)?;
    let (found, sum) = (number(head, 1), head.get(9..).unwrap_or_default());
    if sum != checksum(found, after) {
        return Err(BadCursor::Unknown);
    }
    if found != scope {
        return Err(BadCursor::OtherRequest);
    }
    Ok(after.to_owned())
}

/// The scope of a request: the same for the same parts in their order.
pub(crate) fn scope<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

fn checksum(scope: u64, after: &str) -> [u8; 8] {
    xxhash_rust::xxh3::xxh3_64_with_seed(after.as_bytes(), SEED ^ scope).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map(u64::from_le_bytes).unwrap_or_default()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_place_and_only_for_its_request() {
        let scope = scope(["backend", "team"]);
        let token = encode(scope, "~p:jobs:wörker");
        assert_eq!(decode(scope, &token).as_deref(), Ok("~p:jobs:wörker"));
        assert_eq!(decode(scope + 1, &token), Err(BadCursor::OtherRequest));
        assert_ne!(super::scope(["a", "bc"]), super::scope(["ab", "c"]));
    }

    #[test]
    fn a_forged_a_broken_and_an_old_token_are_told_apart() {
        let token = encode(7, "time");
        for at in 2..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(decode(7, &forged), Err(BadCursor::Unknown), "at {at}");
        }
        for broken in ["time", "0", &token[..token.len() - 1], &token[..30], "+1"] {
            assert_eq!(decode(7, broken), Err(BadCursor::Unknown), "{broken}");
        }
        let old = format!("00{}", &token[2..]);
        assert_eq!(decode(7, &old), Err(BadCursor::Format { found: 0 }));
    }
}
