//! The Raft library's type parameters, and how its types become bytes.

use crate::core::command::{Command, Outcome};
use openraft::impls::leader_id_std::LeaderId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, io};
use xxhash_rust::xxh3::xxh3_64;

/// What the membership says of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The instance's name.
    pub name: String,
    /// Where it was when it joined; the directory knows better.
    pub addr: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.addr)
    }
}

openraft::declare_raft_types!(
    /// One leader a term, as in the paper.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = LeaderId<u64, u64>,
);

/// A position in the log.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote or a leadership.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// An entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// The members as of an entry.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot contains.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot in one piece.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, bytes::Bytes>;

/// Encodes for the wire.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

/// Decodes what came over the wire.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Encodes for the disk: a checksum goes before the bytes.
pub fn seal<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(value, vec![0; 8]).map_err(io::Error::other)?;
    let sum = xxh3_64(bytes.get(8..).unwrap_or_default()).to_le_bytes();
    bytes.iter_mut().zip(sum).for_each(|(slot, byte)| *slot = byte);
    Ok(bytes)
}

/// Decodes what came from the disk; changed bytes are an error, never a value.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, "record is damaged: its checksum does not match");
    let (sum, body) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return Err(damaged());
    }
    decode(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_on_disk_is_seen() {
        let bytes = seal(&("vote", 7u64)).unwrap();
        assert_eq!(unseal::<(String, u64)>(&bytes).unwrap(), ("vote".to_owned(), 7));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(unseal::<(String, u64)>(&bad).is_err(), "byte {at}");
        }
        assert!(unseal::<u64>(&[1, 2]).is_err());
    }
}
