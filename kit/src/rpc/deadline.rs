//! `grpc-timeout`, as the gRPC protocol writes it: up to eight digits and a unit.

use http::HeaderMap;
use std::time::Duration;

pub(super) const HEADER: &str = "grpc-timeout";

/// How long the caller waits; `None` where it does not say, or not in that form.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(HEADER)?.as_bytes();
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count: u64, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_nothing_else() {
        let read = |text: &str| of(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]));
        for (text, seconds) in
            [("2H", 7200.), ("3M", 180.), ("4S", 4.), ("5m", 5e-3), ("6u", 6e-6), ("7n", 7e-9)]
        {
            assert_eq!(read(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5 S", "5mS"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_tonic_writes_is_read() {
        let mut request = tonic::Request::new(());
        request.set_timeout(Duration::from_millis(1500));
        let headers = request.metadata().clone().into_headers();
        assert_eq!(of(&headers), Some(Duration::from_millis(1500)));
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
