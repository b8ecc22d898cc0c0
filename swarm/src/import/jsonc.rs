//! JSON with comments and trailing commas, as editors write it, to plain JSON of the same length,
//! so that the positions in error messages stay right.

/// Blanks comments and commas before a closing bracket.
pub(super) fn to_json(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    let mut comma = None;
    while let Some(&byte) = bytes.get(at) {
        let end = match byte {
            b'"' => string_end(&bytes, at),
            b'/' => comment_end(&bytes, at),
            _ => at + 1,
        };
        match byte {
            b'/' => blank(&mut bytes, at, end),
            b',' => comma = Some(at),
            b'}' | b']' => {
                if let Some(comma) = comma.take() {
                    blank(&mut bytes, comma, comma + 1);
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => comma = None,
        }
        at = end;
    }
    // Only whole ASCII characters or whole comments were blanked: it is still UTF-8.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let length = if rest.starts_with(b"//") {
        rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        rest.windows(2).skip(2).position(|pair| pair == b"*/").map_or(rest.len(), |at| at + 4)
    } else {
        0
    };
    // A lone slash is left for the JSON parser to complain about.
    start + length.max(1)
}

fn blank(bytes: &mut [u8], from: usize, to: usize) {
    if bytes.get(from) == Some(&b'/') && to == from + 1 {
        return;
    }
    for byte in bytes.get_mut(from..to).unwrap_or_default() {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}
