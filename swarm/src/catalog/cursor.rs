//! Cursors: where a page ended, by the last name on it, so that they stay good whatever comes and
//! goes. Beside the name is where the registry itself can go on reading; should it not take that
//! any more, the name alone leads to the same page. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// First byte of a cursor: the form of the rest.
const NAME: char = '1';
const NAME_AND_TOKEN: char = '2';
/// Ends the name; no name has it.
const END: char = '/';

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Only names behind this one are meant.
    pub(super) name: String,
    /// Page token of the registry from which all of them are found; empty is its first page.
    pub(super) token: String,
}

impl Place {
    /// The cursor that leads here.
    pub(super) fn cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{NAME_AND_TOKEN}{}{END}{}", self.name, self.token))
    }

    /// The place of a cursor that was given out.
    pub(super) fn of(cursor: &str) -> Result<Place, String> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let place = bytes.and_then(|bytes| Place::parse(std::str::from_utf8(&bytes).ok()?));
        let words = "invalid cursor: give metadata.nextCursor of an earlier answer as it is";
        place.ok_or_else(|| words.to_owned())
    }

    fn parse(text: &str) -> Option<Place> {
        let (name, token) = match text.strip_prefix(NAME) {
            Some(name) => (name, ""),
            None => text.strip_prefix(NAME_AND_TOKEN)?.split_once(END)?,
        };
        let place = Place { name: name.to_owned(), token: token.to_owned() };
        proto::ids::check_name(name).is_ok().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        for token in ["", "01ab"] {
            let place = Place { name: "time.v2_x".to_owned(), token: token.to_owned() };
            assert_eq!(Place::of(&place.cursor()), Ok(place));
        }
    }

    #[test]
    fn cursors_with_a_name_alone_stay_good() {
        let old = URL_SAFE_NO_PAD.encode("1time");
        assert_eq!(Place::of(&old), Ok(Place { name: "time".to_owned(), token: String::new() }));
    }

    #[test]
    fn what_was_never_given_out_is_refused() {
        let encoded = ["1", "2", "2time", "2/01", "2a b/01", "3time/01", "1a/b", "x"]
            .map(|text| URL_SAFE_NO_PAD.encode(text));
        for cursor in encoded.iter().map(String::as_str).chain(["", "x", "!!!"]) {
            let refusal = Place::of(cursor).expect_err("refused");
            assert!(refusal.starts_with("invalid cursor: "), "{cursor}");
        }
    }
}
