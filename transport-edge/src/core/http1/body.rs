//! The body of an answer: where it ends, without its framing.

use super::Malformed;
use bytes::{Buf as _, Bytes, BytesMut};

/// Longest line with the size of a chunk, extensions included.
const LINE_MAX: usize = 1 << 10;
/// Most bytes of trailers; they are passed over.
const TRAILERS_MAX: usize = 8 << 10;
/// Most digits of a chunk's size; more would not fit into 64 bits.
const DIGITS_MAX: usize = 15;

/// Takes a body out of what comes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoder(State);

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left of the body, or of the chunk when there are chunks.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    /// Bytes of trailers so far.
    Trailers(usize),
    UntilClose,
    Done,
}

impl Decoder {
    /// A body of so many bytes.
    pub fn length(bytes: u64) -> Self {
        Decoder(if bytes == 0 { State::Done } else { State::Length(bytes) })
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Decoder(State::ChunkSize)
    }

    /// A body that ends with its connection.
    pub fn until_close() -> Self {
        Decoder(State::UntilClose)
    }

    pub(super) fn is_until_close(&self) -> bool {
        self.0 == State::UntilClose
    }

    /// Whether all of the body was taken.
    pub fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// How many bytes are to come at least, as far as it was said.
    pub fn announced(&self) -> u64 {
        match self.0 {
            State::Length(left) | State::Chunk(left) => left,
            _ => 0,
        }
    }

    /// The next piece at the front of `buffer`, never empty. `None` when more has to come, or
    /// when it is done: then what is left in `buffer` is not of this body.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        loop {
            let more = match self.0 {
                State::Done => return Ok(None),
                _ if buffer.is_empty() => return Ok(None),
                State::UntilClose => return Ok(Some(buffer.split().freeze())),
                State::Length(left) => return Ok(Some(self.piece(buffer, left, State::Length, State::Done))),
                State::Chunk(left) => {
                    return Ok(Some(self.piece(buffer, left, State::Chunk, State::ChunkEnd)));
                }
                State::ChunkSize => self.chunk_size(buffer)?,
                State::ChunkEnd => self.chunk_end(buffer)?,
                State::Trailers(passed) => self.trailers(buffer, passed)?,
            };
            if !more {
                return Ok(None);
            }
        }
    }

    /// The connection ended: fine for a body that ends so, or that is done.
    pub fn ended(&mut self) -> Result<(), Malformed> {
        match self.0 {
            State::Done => Ok(()),
            State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(Malformed("the connection closed within an answer")),
        }
    }

    fn piece(&mut self, buffer: &mut BytesMut, left: u64, rest: fn(u64) -> State, end: State) -> Bytes {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let left = left.saturating_sub(take as u64);
        self.0 = if left == 0 { end } else { rest(left) };
        buffer.split_to(take).freeze()
    }

    fn chunk_size(&mut self, buffer: &mut BytesMut) -> Result<bool, Malformed> {
        let Some(end) = line(buffer, LINE_MAX)? else { return Ok(false) };
        let size = size(buffer.get(..end).unwrap_or_default())?;
        buffer.advance(end + 2);
        self.0 = if size == 0 { State::Trailers(0) } else { State::Chunk(size) };
        Ok(true)
    }

    fn chunk_end(&mut self, buffer: &mut BytesMut) -> Result<bool, Malformed> {
        match buffer.get(..2) {
            Some(b"\r\n") => {
                buffer.advance(2);
                self.0 = State::ChunkSize;
                Ok(true)
            }
            None if buffer.first() == Some(&b'\r') => Ok(false),
            _ => Err(Malformed("a chunk is longer than its size")),
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut, passed: usize) -> Result<bool, Malformed> {
        let Some(end) = line(buffer, TRAILERS_MAX.saturating_sub(passed))? else { return Ok(false) };
        buffer.advance(end + 2);
        self.0 = if end == 0 { State::Done } else { State::Trailers(passed + end + 2) };
        Ok(true)
    }
}

/// The length of the line at the front, without its CRLF.
fn line(buffer: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
    let found = memchr::memchr(b'\n', buffer);
    if found.unwrap_or(buffer.len()) > limit {
        return Err(Malformed("the framing of the chunks is too long"));
    }
    let Some(end) = found else { return Ok(None) };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    match line {
        Some(line) if !line.contains(&b'\r') => Ok(Some(line.len())),
        _ => Err(Malformed("a line of the chunks does not end with CRLF")),
    }
}

/// `1*HEXDIG [ chunk-ext ]`
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    let known = extension.is_empty() || extension.starts_with(b";");
    let number = std::str::from_utf8(number).ok().filter(|_| known && (1..=DIGITS_MAX).contains(&digits));
    let size = number.and_then(|number| u64::from_str_radix(number, 16).ok());
    size.ok_or(Malformed("the size of a chunk is not a number"))
}
