//! Each model is a few steps of a writer beside a few of a reader.

use super::slot::{EMPTY, Found, GONE, Key, Place, Probe, Slot, Slots};
use crate::{
    epochs::Epochs,
    handles::Handles,
    sync::{AtomicU64, Ordering},
};
use loom::{sync::Arc, thread};

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("a short name")
}

/// All numbers alike, so that a mixture of two writes shows.
fn stamp(n: u64) -> Found {
    Found { version: n, position: n, ticket: n }
}

fn put(slot: &Slot, name: &str, n: u64) {
    let key = key(name);
    slot.fill(key.words, key.tag, stamp(n));
}

/// Where a new name goes.
fn vacant<'a>(slots: &'a Slots, name: &str) -> &'a Slot {
    match slots.place(&key(name)) {
        Place::Free(Some(slot)) => slot,
        Place::Free(None) | Place::Taken(..) => panic!("no slot for {name}"),
    }
}

fn whole(found: Found) -> u64 {
    assert_eq!((found.version, found.version), (found.position, found.ticket), "half a write");
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
        match slot.read(&key("a")) {
            Probe::Found(found) => assert!((1..=2).contains(&whole(found))),
            Probe::Other | Probe::End => panic!("a name that stands was missed"),
        }
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
        if let Probe::Found(found) = slot.read(&key("a")) {
            assert_eq!(whole(found), 1);
        }
        if let Probe::Found(found) = slot.read(&key("b")) {
            assert_eq!(whole(found), 2);
        }
        writer.join().expect("the writer");
    });
}

/// A chain: what lies before a name may go and come, the name is found.
#[test]
fn a_name_that_stands_is_found_while_the_slot_before_it_is_used_again() {
    loom::model(|| {
        let slots = Arc::new(Slots::new(2));
        // Another name in its home, so that the way to it leads past that one.
        put(vacant(&slots, "standing"), "other", 1);
        put(vacant(&slots, "standing"), "standing", 7);
        let writer = thread::spawn({
            let slots = slots.clone();
            move || {
                let Place::Taken(slot, _) = slots.place(&key("other")) else { panic!("it stands") };
                slot.write(GONE, |_| {});
                put(vacant(&slots, "third"), "third", 3);
            }
        });
        let found = slots.find(&key("standing")).expect("a name that stands was missed");
        assert_eq!(whole(found), 7);
        writer.join().expect("the writer");
        assert!(slots.0.iter().all(|slot| slot.tag() != EMPTY), "the freed slot was taken");
    });
}

/// The version of "a" as a thread with handles looks it up.
fn through(handles: &mut Handles<u64>, epochs: &Epochs, slot: &Slot) -> Option<u64> {
    let key = key("a");
    let (at, _) = handles
        .through(key, epochs, || match slot.read(&key) {
            Probe::Found(found) => Some(Some(whole(found))),
            Probe::Other | Probe::End => Some(None),
        })
        .expect("the map may answer");
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
