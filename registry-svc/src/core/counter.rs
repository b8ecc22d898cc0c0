//! A counter's arithmetic: within bounds, each request once.

use crate::core::check::Malformed;
use proto::registry::{Counter, CounterUpdate};
use std::ops::RangeInclusive;

/// Updates that a counter remembers itself. They go with it to the disk and to peers, so that a
/// request repeated at another instance, or after a restart, is not counted twice.
const RECENT: usize = 8;

/// An update that leaves the bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutOfBounds {
    pub(crate) value: i64,
    pub(crate) bounds: RangeInclusive<i64>,
}

/// How far a counter may go.
pub(crate) fn bounds(counter: &Counter) -> RangeInclusive<i64> {
    match (counter.min, counter.max) {
        (0, 0) => i64::MIN..=i64::MAX,
        (min, max) => min..=max,
    }
}

/// Checks a counter as it is registered.
pub(crate) fn check(counter: &Counter) -> Result<(), Malformed> {
    let bounds = bounds(counter);
    if bounds.is_empty() {
        let found = format!("{}..={}", counter.min, counter.max);
        return Err(Malformed::Value { field: "counter", found, allowed: "min must not be above max" });
    }
    if bounds.contains(&counter.value) {
        return Ok(());
    }
    let found = format!("{} in {bounds:?}", counter.value);
    Err(Malformed::Value { field: "counter", found, allowed: "its value must be within its bounds" })
}

/// Adds; the request is remembered unless its id is empty.
pub(crate) fn add(counter: &Counter, delta: i64, request_id: &str) -> Result<Counter, OutOfBounds> {
    let bounds = bounds(counter);
    let sum = counter.value.checked_add(delta).filter(|sum| bounds.contains(sum));
    let value = sum.ok_or(OutOfBounds { value: counter.value, bounds })?;
    let mut next = Counter { value, ..counter.clone() };
    if !request_id.is_empty() {
        let forgotten = (next.recent.len() + 1).saturating_sub(RECENT);
        next.recent.drain(..forgotten);
        next.recent.push(CounterUpdate { request_id: request_id.to_owned(), value });
    }
    Ok(next)
}

/// What a remembered request led to.
pub(crate) fn answered(counter: &Counter, request_id: &str) -> Option<i64> {
    counter.recent.iter().find(|update| update.request_id == request_id).map(|update| update.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(min: i64, max: i64) -> Counter {
        Counter { min, max, ..Counter::default() }
    }

    #[test]
    fn neither_bound_nor_64_bits_are_left() {
        let counter = add(&within(-2, 3), 3, "").unwrap();
        assert_eq!(add(&counter, 1, ""), Err(OutOfBounds { value: 3, bounds: -2..=3 }));
        assert_eq!(add(&counter, -5, "").unwrap().value, -2);
        assert_eq!(add(&counter, i64::MIN, ""), Err(OutOfBounds { value: 3, bounds: -2..=3 }));
        let most = add(&Counter::default(), i64::MAX, "").unwrap();
        assert!(add(&most, 1, "").is_err());
        assert_eq!(add(&most, i64::MIN, "").unwrap().value, -1);
    }

    #[test]
    fn the_last_requests_are_remembered() {
        let mut counter = Counter::default();
        for n in 1..=20 {
            counter = add(&counter, n, &n.to_string()).unwrap();
        }
        assert_eq!(counter.recent.len(), RECENT);
        assert_eq!((answered(&counter, "20"), answered(&counter, "19")), (Some(210), Some(190)));
        assert_eq!((answered(&counter, "12"), answered(&counter, "")), (None, None));
    }

    #[test]
    fn a_counter_out_of_its_bounds_is_not_registered() {
        let refused = |counter: Counter| check(&counter).unwrap_err().to_string();
        assert!(refused(within(3, -3)).contains("min must not be above max"));
        assert!(refused(Counter { value: 4, ..within(0, 3) }).contains("\"4 in 0..=3\""));
        assert_eq!(check(&Counter { value: i64::MIN, ..within(0, 0) }), Ok(()));
    }
}
