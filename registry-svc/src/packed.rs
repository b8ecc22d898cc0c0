//! Packed batches of lookups: length-prefixed names in, 8 bytes a name out.

use crate::{
    core::{check::Malformed, table::Entry},
    error::Failure,
    handle::Handle,
};
use futures::{Stream, StreamExt as _};
use kit::shutdown::Shutdown;
use proto::{
    ids::NAME_MAX,
    registry::{PackedAnswer, PackedLookup},
};
use registry_client::map::Reader;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// Names in one batch.
const NAMES_MAX: usize = 10_000;
/// Set in the answer of a name that is registered.
const FOUND: u64 = 1 << 63;

/// Answers each batch in order, until the client has said its last, or the shutdown.
pub(crate) fn answers(
    handle: Handle,
    requests: Streaming<PackedLookup>,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<PackedAnswer, Status>> + Send + 'static {
    let mut reader = handle.reader();
    let stop = async move { shutdown.wait().await };
    requests.take_until(stop).map(move |request| answer(&handle, &mut reader, &request?))
}

fn answer(
    handle: &Handle,
    reader: &mut Reader<Arc<Entry>>,
    request: &PackedLookup,
) -> Result<PackedAnswer, Status> {
    let revision = handle.feed().head();
    let count = count(&request.names).map_err(Failure::from)?;
    let mut answers = vec![0; count * 8];
    let (places, _) = answers.as_chunks_mut::<8>();
    let (mut places, mut found) = (places.iter_mut(), 0);
    handle.versions(reader, Names(&request.names), |version| {
        found += u64::from(version.is_some());
        if let Some(place) = places.next() {
            *place = version.map_or(0, |version| FOUND | version).to_le_bytes();
        }
    });
    handle.metrics().lookups(found, count as u64 - found);
    Ok(PackedAnswer { id: request.id, answers: answers.into(), revision })
}

/// Checks the frame, so that what reads it need not.
fn count(packed: &[u8]) -> Result<usize, Malformed> {
    let wrong = |found: String, allowed| Malformed::Value { field: "names", found, allowed };
    let (mut rest, mut count) = (packed, 0);
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length);
        if length == 0 || length > NAME_MAX {
            return Err(wrong(format!("a name of {length} bytes"), "names have 1 to 128 bytes"));
        }
        rest = after
            .get(length..)
            .ok_or_else(|| wrong(format!("{} bytes", after.len()), "the last name must be whole"))?;
        count += 1;
    }
    if count > NAMES_MAX {
        return Err(wrong(format!("{count} names"), "at most 10000 in one batch are allowed"));
    }
    Ok(count)
}

/// The names of a checked frame.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, after) = self.0.split_first()?;
        let (name, rest) = after.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_a_broken_one_is_told_why() {
        let packed = b"\x01a\x03b.c";
        assert_eq!(count(packed).ok(), Some(2));
        assert_eq!(Names(packed).collect::<Vec<_>>(), [&b"a"[..], &b"b.c"[..]]);
        for (broken, why) in [
            (&b"\x00"[..], "1 to 128 bytes"),
            (&b"\x02a"[..], "must be whole"),
            (&[129; 200][..], "1 to 128 bytes"),
            (&b"\x01a".repeat(NAMES_MAX + 1)[..], "at most 10000"),
        ] {
            let error = count(broken).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{error}");
        }
    }
}
