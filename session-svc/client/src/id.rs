//! Session ids: a slot of the ring and 128 random bits.

use crate::ring::Ring;
use std::{fmt, str::FromStr};

/// Characters of an id: 4 of the slot, 32 random, all lower-case hex.
pub const ID_LEN: usize = 36;
/// Tries to find a slot that the preferred instance owns. Missing one costs a network hop a
/// request, nothing else.
const MINT_TRIES: usize = 1024;

/// Not an id of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("session id is not {ID_LEN} lower-case hex characters")]
pub struct InvalidId;

/// A session id: visible ASCII, unguessable, and telling where it lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    /// A fresh id that `prefer` owns on this ring if it is a member. The random part comes from the
    /// operating system's generator through a CSPRNG.
    pub fn mint(ring: &Ring, prefer: Option<&str>) -> SessionId {
        let member = prefer.and_then(|name| ring.members().iter().position(|m| m.name == name));
        let owned = |slot: &u16| member.is_none_or(|index| ring.owners(*slot).contains(&(index as u16)));
        let slot = (0..MINT_TRIES).map(|_| rand::random::<u16>()).find(owned);
        let slot = slot.unwrap_or_else(rand::random);
        SessionId(format!("{slot:04x}{:032x}", rand::random::<u128>()))
    }

    /// The slot of the ring, which names the home vnode.
    pub fn slot(&self) -> u16 {
        self.0.get(..4).and_then(|text| u16::from_str_radix(text, 16).ok()).unwrap_or_default()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != ID_LEN || !text.bytes().all(hex) {
            return Err(InvalidId);
        }
        Ok(SessionId(text.to_owned()))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Member;

    #[test]
    fn a_minted_id_is_owned_by_the_preferred_instance() {
        let members = (0..30).map(|i| Member { name: format!("n{i}"), zone: String::new() });
        let ring = Ring::build(members, 3);
        for _ in 0..100 {
            let id = SessionId::mint(&ring, Some("n17"));
            assert!(ring.is_owner(&id, "n17"));
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
    }

    #[test]
    fn a_foreign_id_is_refused() {
        for text in ["", "abc", "../../etc/passwd", &"A".repeat(36), &"g".repeat(36), &"a".repeat(37)] {
            assert_eq!(text.parse::<SessionId>(), Err(InvalidId));
        }
    }
}
