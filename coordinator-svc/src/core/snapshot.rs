//! The bytes of a snapshot: a magic word, a format version, a checksum, and postcard of the state.

use super::state::State;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"swcs";
/// The format that this version writes.
pub const FORMAT: u16 = 1;
const HEAD: usize = MAGIC.len() + 2 + 8;

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Too short, or another kind of file.
    #[error("not a coordinator snapshot")]
    Foreign,
    /// A newer or older format.
    #[error("snapshot has format {0}; this version reads {FORMAT}")]
    Format(u16),
    /// The bytes changed since they were written.
    #[error("snapshot is damaged: its checksum does not match")]
    Damaged,
    /// The state does not encode or decode.
    #[error("snapshot does not decode: {0}")]
    Codec(#[from] postcard::Error),
}

/// Writes a snapshot.
pub fn encode(state: &State) -> Result<Bytes, SnapshotError> {
    let mut bytes = vec![0; HEAD];
    bytes = postcard::to_extend(state, bytes)?;
    let sum = xxh3_64(bytes.get(HEAD..).unwrap_or_default());
    let head = MAGIC.iter().copied().chain(FORMAT.to_le_bytes()).chain(sum.to_le_bytes());
    for (slot, byte) in bytes.iter_mut().zip(head) {
        *slot = byte;
    }
    Ok(bytes.into())
}

/// Reads a snapshot.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(SnapshotError::Foreign)?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or(SnapshotError::Foreign)?;
    let (sum, body) = rest.split_first_chunk::<8>().ok_or(SnapshotError::Foreign)?;
    if magic != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    let format = u16::from_le_bytes(*format);
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    if u64::from_le_bytes(*sum) != xxh3_64(body) {
        return Err(SnapshotError::Damaged);
    }
    Ok(postcard::from_bytes(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::Command;

    #[test]
    fn a_snapshot_reads_back_and_a_damaged_one_is_refused() {
        let mut state = State::default();
        state.apply(1, &Command::put("r".into(), "k".into(), Some("v".into()), None).unwrap());
        let bytes = encode(&state).unwrap().to_vec();
        assert_eq!(decode(&bytes).unwrap(), state);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "byte {at}");
        }
        assert!(matches!(decode(&bytes[..3]), Err(SnapshotError::Foreign)));
    }
}
