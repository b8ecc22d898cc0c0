use super::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

/// What an answer was read as.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: u16,
    keep_alive: bool,
    content: Content,
    body: Vec<u8>,
    /// Bytes after the answer.
    left: Vec<u8>,
}

/// Reads one answer that comes in `pieces`; `None` while its end has not come.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, closes: bool) -> Result<Option<Read>, Malformed> {
    let (mut buffer, mut reader) = (BytesMut::new(), HeadReader::default());
    let (mut head, mut body) = (None::<Head>, Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = reader.next(&mut buffer)?;
        }
        if let Some(head) = &mut head {
            while let Some(part) = head.body.next(&mut buffer)? {
                assert!(!part.is_empty());
                body.extend_from_slice(&part);
            }
        }
    }
    let Some(mut head) = head else { return Ok(None) };
    if closes {
        head.body.ended()?;
    }
    let Head { status, keep_alive, content, .. } = head;
    let whole = Read { status: status.as_u16(), keep_alive, content, body, left: buffer.to_vec() };
    Ok(head.body.is_done().then_some(whole))
}

fn whole(answer: &str) -> Result<Option<Read>, Malformed> {
    read([answer.as_bytes()], false)
}

fn refused(answer: &str) -> &'static str {
    match whole(answer) {
        Err(Malformed(reason)) => reason,
        Ok(read) => panic!("{answer:?} was read as {read:?}"),
    }
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn an_answer_reads_the_same_wherever_its_bytes_are_cut() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{ }\n".to_owned(),
        "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: Keep-Alive, CLOSE\r\n\r\nok".to_owned(),
        format!("{CHUNKED}3;ext=\"a;b\"\r\nabc\r\n00A\r\n0123456789\r\n0 ; last\r\nx-trailer: 1\r\n\r\n"),
        format!("{CHUNKED}0\r\n\r\nleft over"),
    ];
    for answer in answers {
        let expected = whole(&answer).unwrap();
        assert!(expected.is_some(), "{answer:?}");
        let bytes = answer.as_bytes();
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(read([left, right], false).unwrap(), expected, "{answer:?} cut at {cut}");
        }
        assert_eq!(read(bytes.chunks(1), false).unwrap(), expected, "{answer:?} byte by byte");
    }
}

#[test]
fn what_a_head_says_is_kept() {
    let read = |answer: &str| HeadReader::default().next(&mut BytesMut::from(answer)).unwrap().unwrap();
    let head = read(
        "HTTP/1.1 429 Too Many Requests\r\nRETRY-AFTER: 7\r\nMcp-Session-Id: abc\r\nMcp-Session-Id: def\r\nContent-Type: Application/JSON;a=b\r\n\r\n",
    );
    assert_eq!(
        (head.status.as_u16(), head.retry_after, head.session_id.as_deref()),
        (429, Some(7), Some("abc"))
    );
    assert_eq!(head.content, Content::Json);
    assert_eq!(head.body, Decoder::until_close());
    assert!(!head.keep_alive, "a body that ends with its connection leaves none");
    let kept = |answer: &str| read(answer).keep_alive;
    assert!(kept("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"));
    assert!(!kept("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, close\r\n\r\n"));
    assert!(!kept("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n"));
    assert!(kept("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n"));
}

#[test]
fn lengths_that_two_readers_could_read_differently_are_refused() {
    let with = |headers: &str| refused(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\nxxxxxxxxxx"));
    for bad in ["-1", "+1", "", "1 2", "1,1", "0x1", "1e1", "99999999999999999999"] {
        assert_eq!(with(&format!("content-length: {bad}")), "content-length is not a number", "{bad}");
    }
    assert_eq!(with("content-length: 1\r\nContent-Length: 1"), "content-length comes twice");
    assert_eq!(with("content-length: 1\r\ncontent-length: 2"), "content-length comes twice");
    let contradict = "content-length and transfer-encoding contradict";
    assert_eq!(with("content-length: 1\r\ntransfer-encoding: chunked"), contradict);
    assert_eq!(with("transfer-encoding: chunked\r\ncontent-length: 1"), contradict);
    let alone = "transfer-encoding is not chunked alone";
    for bad in ["identity", "gzip, chunked", "chunked, chunked", "xchunked", "chunked;a=b", ""] {
        assert_eq!(with(&format!("transfer-encoding: {bad}")), alone, "{bad}");
    }
    assert_eq!(with("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), alone);
    assert_eq!(
        refused("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        "transfer-encoding in HTTP/1.0"
    );
}

#[test]
fn chunks_that_lie_about_their_size_are_refused() {
    let with = |chunks: &str| refused(&format!("{CHUNKED}{chunks}"));
    for bad in
        ["\r\n", "x\r\n", "-1\r\nx", "+1\r\nx", "1 1\r\nx", ";a\r\n", "0x1\r\nx", "1000000000000000\r\n"]
    {
        assert_eq!(with(bad), "the size of a chunk is not a number", "{bad:?}");
    }
    for bad in ["1\r\nab\r\n", "1\r\na\n\n", "1\r\na\rb"] {
        assert_eq!(with(bad), "a chunk is longer than its size", "{bad:?}");
    }
    for bad in ["1\na", "1\r\r\na", "1;\rx\r\na", "0\r\n\n"] {
        assert_eq!(with(bad), "a line of the chunks does not end with CRLF", "{bad:?}");
    }
    let long = "the framing of the chunks is too long";
    assert_eq!(with(&format!("1;{}", "x".repeat(1 << 11))), long);
    assert_eq!(with(&format!("0\r\n{}", "a: b\r\n".repeat(1 << 11))), long);
    assert_eq!(with(&format!("0\r\na: {}", "b".repeat(1 << 14))), long);
}

#[test]
fn heads_have_limits_and_are_http() {
    let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(33 << 10));
    assert_eq!(refused(&endless), "the head is larger than 32 KiB");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(2 << 10);
    assert_eq!(refused(&interim), "the head is larger than 32 KiB");
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(refused(&many), "the head has more than 100 headers");
    assert_eq!(refused("HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n"), "switched protocols unasked");
    for bad in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\0: b\r\n\r\n",
        "{\"jsonrpc\":\"2.0\"}\r\n\r\n",
        "\r\n\r\n",
    ] {
        assert_eq!(refused(bad), "the head is not HTTP/1.1", "{bad:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx".to_owned(),
        format!("{CHUNKED}1\r\nx\r\n"),
        format!("{CHUNKED}0\r\n"),
    ] {
        assert_eq!(read([answer.as_bytes()], true), Err(Malformed("the connection closed within an answer")));
    }
    let open_end = read([b"HTTP/1.1 200 OK\r\n\r\nab".as_slice(), b"c"], true).unwrap().unwrap();
    assert_eq!((open_end.body, open_end.keep_alive), (b"abc".to_vec(), false));
}

/// A body as chunks, each of a piece of it, some with extensions.
fn in_chunks(pieces: &[Vec<u8>], extension: &str, trailer: &str) -> Vec<u8> {
    let mut out = CHUNKED.as_bytes().to_vec();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        out.extend_from_slice(format!("{:X}{extension}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    out
}

/// `bytes` in pieces that end at `cuts`.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn a_body_comes_out_as_it_went_in_and_what_follows_is_left(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        extension in "(;[a-z]{1,4}(=[a-z]{1,4})?)?",
        trailer in "(x-[a-z]{1,4}: [a-z]{0,4}\r\n){0,2}",
        after in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = in_chunks(&pieces, &extension, &trailer);
        bytes.extend_from_slice(&after);
        let read = read(cut(&bytes, &cuts), false).unwrap().unwrap();
        prop_assert_eq!(read.body, pieces.concat());
        prop_assert_eq!(read.left, after);
    }

    /// One changed byte is read as another body or refused, never as bytes that did not come.
    #[test]
    fn a_changed_byte_makes_nothing_up(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = in_chunks(&pieces, "", "");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let at_once = read([&bytes[..]], true);
        prop_assert_eq!(&read(cut(&bytes, &cuts), true), &at_once);
        if let Ok(Some(read)) = at_once {
            prop_assert!(read.body.len() + read.left.len() < bytes.len());
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read([&bytes[..]], true);
        let mut decoder = Decoder::chunked();
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut taken = 0;
        while let Ok(Some(piece)) = decoder.next(&mut buffer) {
            taken += piece.len();
        }
        prop_assert!(taken + buffer.len() <= bytes.len());
    }

    #[test]
    fn a_body_of_a_length_takes_exactly_that(length in 0_usize..60, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let (mut decoder, mut buffer) = (Decoder::length(length as u64), BytesMut::from(&bytes[..]));
        let taken = decoder.next(&mut buffer).unwrap().unwrap_or(Bytes::new());
        prop_assert_eq!(&taken[..], &bytes[..length.min(bytes.len())]);
        prop_assert_eq!(decoder.is_done(), bytes.len() >= length);
        prop_assert_eq!(decoder.ended().is_ok(), bytes.len() >= length);
    }
}
