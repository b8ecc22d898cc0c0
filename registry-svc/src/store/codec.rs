//! Records as bytes: a kind, a checksum, the protobuf message. A flipped bit is told, not served,
//! and so is a record that stands under the name of another one.

use super::StoreError;
use crate::core::batch::Write;
use prost::Message as _;
use proto::registry::{Registration, Removed};

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;
const HEAD: usize = 9;

/// What is kept of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Put(Box<Registration>),
    Tombstone(Removed),
}

impl Record {
    pub(crate) fn name(&self) -> &str {
        match self {
            Record::Put(registration) => &registration.name,
            Record::Tombstone(removed) => &removed.name,
        }
    }
}

/// The key, and the bytes of a record or `None` where it goes.
pub(super) fn encode(write: &Write) -> (&str, Option<Vec<u8>>) {
    match write {
        Write::Put(entry) => (&entry.name, Some(seal(PUT, entry.registration.encode_to_vec()))),
        Write::Tombstone(removed) => (&removed.name, Some(seal(TOMBSTONE, removed.encode_to_vec()))),
        Write::Forget(name) => (name, None),
    }
}

pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Record, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { name: name.to_owned(), what: what.to_owned() };
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Err(corrupt("it is cut short"));
    };
    let (kind, sum) = (head.first().copied().unwrap_or_default(), head.get(1..).unwrap_or_default());
    if sum != checksum(kind, body) {
        return Err(corrupt("its checksum does not match"));
    }
    let broken = |error: prost::DecodeError| corrupt(&error.to_string());
    let record = match kind {
        PUT => Registration::decode(body).map(|found| Record::Put(found.into())).map_err(broken)?,
        TOMBSTONE => Removed::decode(body).map(Record::Tombstone).map_err(broken)?,
        _ => return Err(corrupt("its kind is unknown")),
    };
    if record.name() != name {
        return Err(corrupt(&format!("it is the record of {:?}", record.name())));
    }
    Ok(record)
}

fn seal(kind: u8, body: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.push(kind);
    bytes.extend(checksum(kind, &body));
    bytes.extend(body);
    bytes
}

fn checksum(kind: u8, body: &[u8]) -> [u8; 8] {
    xxhash_rust::xxh3::xxh3_64_with_seed(body, u64::from(kind)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::Entry;

    #[test]
    fn every_flipped_bit_is_found() {
        let registration =
            Registration { name: "time".into(), owner: "operator".into(), ..Default::default() };
        let write = Write::Put(Entry::new(registration.clone()));
        let bytes = encode(&write).1.unwrap();
        assert_eq!(decode("time", &bytes), Ok(Record::Put(registration.into())));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode("time", &damaged).is_err(), "bit {bit}");
        }
        assert!(decode("time", &bytes[..4]).is_err());
        let misplaced = decode("clock", &bytes).unwrap_err().to_string();
        assert_eq!(misplaced, "the record of \"clock\" is damaged: it is the record of \"time\"");
    }
}
