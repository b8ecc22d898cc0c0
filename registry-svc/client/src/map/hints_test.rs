//! Hints against a walk byte by byte.

use super::hints::{EMPTY, GONE, Hints, WORD, hint};
use proptest::prelude::*;

#[test]
fn a_hint_is_never_a_mark() {
    assert!((0..=0xff).all(|byte| !matches!(hint(byte << 32), EMPTY | GONE)));
}

proptest! {
    #[test]
    fn a_chain_is_walked_as_byte_by_byte(
        marks in prop::collection::vec(prop::sample::select(vec![EMPTY, GONE, 1u8, 2, 0x7f, 0x80]), 1..5)
            .prop_map(|marks| marks.repeat(WORD)),
        home in 0usize..64,
        wanted in prop::sample::select(vec![1u8, 2, 0x7f, 0x80]),
    ) {
        let hints = Hints::new(marks.len());
        marks.iter().enumerate().for_each(|(at, mark)| hints.show(at, *mark));
        let home = home % marks.len();
        let chain: Vec<usize> = (home..marks.len()).chain(0..home).collect();
        let walked: Vec<usize> =
            chain.iter().copied().take_while(|at| marks[*at] != EMPTY).filter(|at| marks[*at] == wanted).collect();
        let mut seen = Vec::new();
        let none: Option<()> = hints.search(home, wanted, |at| {
            seen.push(at);
            None
        });
        // A chain without an end is walked once and to the end of its first word again.
        prop_assert_eq!((&seen[..walked.len()], none), (&walked[..], None));
        prop_assert!(seen[walked.len()..].iter().all(|at| walked.contains(at)));
        let free = chain.iter().copied().find(|at| matches!(marks[*at], EMPTY | GONE));
        prop_assert_eq!(hints.vacant(home), free);
        let near = walked.first().copied().filter(|at| at / WORD == home / WORD && *at >= home);
        prop_assert_eq!(hints.guess(home, wanted), near.unwrap_or(home));
    }
}
