//! Each model is a few steps of a writer beside a few of a reader. Where the writer reads before it
//! writes it is the first thread: loom looks for other orders of a write and the access before it
//! alone, and that would be the writer's own; of a read that comes later it tries every value.

use super::{
    hints::WORD,
    slot::{Found, GONE, Key, Place, Slot, Slots},
};
use crate::{
    epochs::Epochs,
    handles::Handles,
    sync::{AtomicU64, Ordering},
};
use loom::{sync::Arc, thread};

fn key(name: &str) -> Key {
    Key::of(name.as_bytes())
}

/// All numbers alike, so that a mixture of two writes shows.
fn stamp(n: u64) -> Found {
    Found { version: n, position: n }
}

fn put(slot: &Slot, name: &str, n: u64) {
    let key = key(name);
    slot.fill(key.words, key.tag, stamp(n));
}

/// Puts a new name where it belongs.
fn add(slots: &Slots, name: &str, n: u64) -> usize {
    match slots.place(&key(name)) {
        Place::Free(Some(at)) => {
            slots.fill(at, &key(name), stamp(n));
            at
        }
        Place::Free(None) | Place::Taken(..) => panic!("no slot for {name}"),
    }
}

/// Names of one home.
fn neighbours<const N: usize>(slots: &Slots) -> [String; N] {
    let mut names = (0..).map(|n| format!("n{n}")).filter(|name| slots.home(key(name).hash) == 0);
    std::array::from_fn(|_| names.next().unwrap_or_default())
}

fn whole(found: Found) -> u64 {
    assert_eq!(found.version, found.position, "half a write");
    found.version
}

/// A seqlock: a reader sees one write or the other, whole.
#[test]
fn a_read_of_a_slot_is_never_half_of_a_write() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        put(&slot, "a", 1);
        let writer = thread::spawn({
            let slot = slot.clone();
            move || put(&slot, "a", 2)
        });
        let found = slot.read(&key("a")).expect("a name that stands was missed");
        assert!((1..=2).contains(&whole(found)));
        writer.join().expect("the writer");
    });
}

/// The same for what a replacement writes.
#[test]
fn a_read_of_a_slot_is_never_half_of_an_update() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(8));
        let at = add(&slots, "a", 1);
        let writer = thread::spawn({
            let slots = slots.clone();
            move || slots.update(at, stamp(2))
        });
        let found = slots.find(&key("a")).map(whole).expect("a name that stands was missed");
        assert!((1..=2).contains(&found));
        writer.join().expect("the writer");
    });
}

/// A slot that goes from one name to another never answers one with the other's numbers.
#[test]
fn a_slot_that_changes_its_name_answers_neither_with_the_others_numbers() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        put(&slot, "a", 1);
        let writer = thread::spawn({
            let slot = slot.clone();
            move || {
                slot.write(GONE, |_| {});
                put(&slot, "b", 2);
            }
        });
        if let Some(found) = slot.read(&key("a")) {
            assert_eq!(whole(found), 1);
        }
        if let Some(found) = slot.read(&key("b")) {
            assert_eq!(whole(found), 2);
        }
        writer.join().expect("the writer");
    });
}

/// A chain: what lies before a name may go and come, the name is found.
#[test]
fn a_name_that_stands_is_found_while_the_slot_before_it_is_used_again() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(2 * WORD));
        // Its home is full, so that the way to it leads past other names.
        let names: [String; WORD + 2] = neighbours(&slots);
        let [others @ .., standing, third] = names;
        let taken = others.map(|other| add(&slots, &other, 1));
        assert!(add(&slots, &standing, 7) >= WORD, "it lies in its home");
        let home = taken[0];
        let reader = thread::spawn({
            let slots = slots.clone();
            move || slots.find(&key(&standing)).map(whole)
        });
        slots.free(home);
        assert_eq!(add(&slots, &third, 3), home, "the freed slot is taken");
        assert_eq!(reader.join().expect("the reader"), Some(7), "a name that stands was missed");
    });
}

/// The version of "a" as a thread with handles looks it up.
fn through(handles: &mut Handles<u64>, epochs: &Epochs, slot: &Slot) -> Option<u64> {
    let key = key("a");
    let (at, _) =
        handles.through(&key, epochs, || Some(slot.read(&key).map(whole))).expect("the map may answer");
    handles.get(at).copied()
}

/// Epochs: whoever has heard of a change never gets the handle from before it.
#[test]
fn a_handle_is_never_older_than_what_its_thread_has_heard_of() {
    loom::model(|| {
        let (slot, epochs) = (Arc::new(Slot::default()), Arc::new(Epochs::new()));
        let told = Arc::new(AtomicU64::new(0));
        put(&slot, "a", 1);
        let writer = thread::spawn({
            let (slot, epochs, told) = (slot.clone(), epochs.clone(), told.clone());
            move || {
                // As `Names::show`.
                put(&slot, "a", 2);
                epochs.bump(key("a").hash);
                told.store(2, Ordering::Release);
            }
        });
        let mut handles = Handles::new(2);
        let first = through(&mut handles, &epochs, &slot);
        let heard = told.load(Ordering::Acquire);
        let second = through(&mut handles, &epochs, &slot);
        assert!(second >= first, "it went back");
        assert!(second >= Some(heard), "a handle from before the change");
        writer.join().expect("the writer");
        assert_eq!(through(&mut handles, &epochs, &slot), Some(2), "a handle stayed for ever");
    });
}

/// The same for a name that was absent: what is registered is not hidden.
#[test]
fn a_handle_that_says_absent_ends_when_the_name_comes() {
    loom::model(|| {
        let (slot, epochs) = (Arc::new(Slot::default()), Arc::new(Epochs::new()));
        let mut handles = Handles::new(2);
        assert_eq!(through(&mut handles, &epochs, &slot), None);
        let writer = thread::spawn({
            let (slot, epochs) = (slot.clone(), epochs.clone());
            move || {
                put(&slot, "a", 1);
                epochs.bump(key("a").hash);
            }
        });
        through(&mut handles, &epochs, &slot);
        writer.join().expect("the writer");
        assert_eq!(through(&mut handles, &epochs, &slot), Some(1), "a registered name is hidden");
    });
}

/// Hints: whoever has heard that a name stands finds it, whatever the hints were before.
#[test]
fn a_name_that_was_added_is_found_by_whoever_has_heard_of_it() {
    loom::model(|| {
        let (slots, told) = (Arc::new(Slots::new(8)), Arc::new(AtomicU64::new(0)));
        let [standing, added] = neighbours(&slots);
        add(&slots, &standing, 7);
        let reader = thread::spawn({
            let (slots, told, added) = (slots.clone(), told.clone(), added.clone());
            move || {
                let heard = told.load(Ordering::Acquire) == 1;
                let found = slots.find(&key(&added)).map(whole);
                assert!(found == Some(3) || (found.is_none() && !heard), "{found:?}, heard: {heard}");
                assert_eq!(slots.find(&key(&standing)).map(whole), Some(7), "a name that stands was missed");
            }
        });
        add(&slots, &added, 3);
        told.store(1, Ordering::Release);
        reader.join().expect("the reader");
    });
}
