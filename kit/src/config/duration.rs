//! Durations in configuration: `"200ms"`, `"2s"`, `"1.5s"`, `"5m"`, `"1h"`.
//!
//! Use as `#[serde(with = "kit::config::duration")]`.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use std::time::Duration;

/// Writes the shortest exact form.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Reads text with a unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// Parses a number with a unit of `us`, `ms`, `s`, `m` or `h`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("duration {text:?} is not a number with a unit such as \"200ms\", \"2s\", \"5m\"");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// The inverse of [`parse`].
pub fn format(duration: Duration) -> String {
    let (micros, millis) = (duration.as_micros(), duration.as_millis());
    if micros % 1_000 != 0 {
        format!("{micros}us")
    } else if millis % 1_000 != 0 {
        format!("{millis}ms")
    } else {
        format!("{}s", millis / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_a_round_trip_and_nonsense_is_told() {
        for text in ["200ms", "2s", "15us", "90s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "2", "s", "2 weeks", "-1s", "1e3s"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
