//! Id newtypes and the rule for names.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name in characters (MCP's limit for tool names).
pub const NAME_MAX: usize = 128;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("name is empty; 1 to {NAME_MAX} characters of A-Z a-z 0-9 _ - . are allowed")]
    Empty,
    /// More than [`NAME_MAX`] characters.
    #[error("name has {0} characters; at most {NAME_MAX} are allowed")]
    TooLong(usize),
    /// A character outside the allowed set.
    #[error("name {name:?} has {found:?} at position {position}; only A-Z a-z 0-9 _ - . are allowed")]
    Character {
        /// The refused name.
        name: String,
        /// The first bad character.
        found: char,
        /// Its index, from 0.
        position: usize,
    },
}

/// Checks a name: 1 to 128 characters of `A-Z a-z 0-9 _ - .`.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if let Some((position, found)) = name.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        let name = name.chars().take(NAME_MAX).collect();
        return Err(NameError::Character { name, found, position });
    }
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check_name(&name)?;
                Ok(Self(name))
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                name.to_owned().try_into()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// Name of a node or service instance, stable over restarts.
    NodeName
}
name_type! {
    /// Name of a backend (an MCP server behind the edge).
    BackendName
}

/// Counts the starts of a node: ms since the epoch at start, so it grows without a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Index of a registry shard, below the configured number of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard of a key: XXH3-64 (seed 0) of the whole key's bytes, modulo a power of two.
    /// Published and stable: every node and every language computes the same.
    pub fn of(key: &str, shards: u16) -> ShardId {
        debug_assert!(shards.is_power_of_two());
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        ShardId((hash & u64::from(shards - 1)) as u16)
    }
}

/// A fresh request id for an idempotent write: 128 random bits in hex.
pub fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_name_is_told_where_it_is_bad() {
        let error = check_name("time server").unwrap_err();
        assert_eq!(error, NameError::Character { name: "time server".into(), found: ' ', position: 4 });
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"a".repeat(129)), Err(NameError::TooLong(129)));
        assert_eq!(check_name(&"a".repeat(128)), Ok(()));
    }

    #[test]
    fn the_published_shard_hash_does_not_move() {
        assert_eq!(ShardId::of("time", 16), ShardId((xxhash_rust::xxh3::xxh3_64(b"time") & 15) as u16));
        assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }
}
