//! Hints against a walk byte by byte.

use super::hints::{EMPTY, GONE, Hints, WORD, hint};
use proptest::prelude::*;
use std::cell::RefCell;

#[test]
fn a_hint_is_never_a_mark() {
    assert!((0..=0xff).all(|byte| !matches!(hint(byte << 32), EMPTY | GONE)));
}

proptest! {
    #[test]
    fn a_chain_is_walked_as_byte_by_byte(
        marks in prop::collection::vec(prop::sample::select(vec![EMPTY, GONE, 1u8, 2, 0x7f, 0x80]), 1..5)
            .prop_map(|marks| marks.repeat(WORD)),
        home in 0usize..8,
        wanted in prop::sample::select(vec![1u8, 2, 0x7f, 0x80]),
    ) {
        let hints = Hints::new(marks.len());
        marks.iter().enumerate().for_each(|(at, mark)| hints.show(at, *mark));
        let (words, home) = (marks.len() / WORD, home % (marks.len() / WORD));
        let chain: Vec<usize> = (home..words).chain(0..home).collect();
        let slots = |word: &usize| word * WORD..(word + 1) * WORD;
        let is_last = |word: &&usize| slots(word).any(|at| marks[at] == EMPTY);
        let length = chain.iter().position(|word| is_last(&word)).map_or(words, |last| last + 1);
        let walked: Vec<usize> =
            chain[..length].iter().flat_map(slots).filter(|at| marks[*at] == wanted).collect();
        let seen = RefCell::new(Vec::new());
        let none: Option<()> = hints.search(home, wanted, |at| {
            seen.borrow_mut().push(at);
            None
        });
        let guess = hints.guess(home, wanted);
        prop_assert_eq!(guess, walked.first().copied().filter(|at| at / WORD == home));
        // The guess is looked at first, and once more where it belongs.
        let looked: Vec<usize> = guess.into_iter().chain(walked).collect();
        prop_assert_eq!((seen.into_inner(), none), (looked, None));
        let free = chain.iter().flat_map(slots).find(|at| matches!(marks[*at], EMPTY | GONE));
        prop_assert_eq!(hints.vacant(home), free);
    }
}
