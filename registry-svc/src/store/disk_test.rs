//! A disk of the tests' own: it knows what a crash at any moment would leave of it, and it fails
//! when it is told to.

use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use redb::StorageBackend;
use std::{collections::BTreeMap, fmt, io, sync::Arc};

const PAGE: u64 = 4096;

/// The bytes of a disk; copies share pages that neither has changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    len: u64,
    // A page that is not here is zero.
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Offsets of the bytes that are not in a page of zeros.
    pub(super) fn used(&self) -> Vec<u64> {
        self.pages
            .keys()
            .flat_map(|page| page * PAGE..(page + 1) * PAGE)
            .filter(|at| *at < self.len)
            .collect()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        let (mut rest, mut at) = (out, offset);
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (now, later) = rest.split_at_mut((PAGE as usize - within).min(rest.len()));
            match self.pages.get(&(at / PAGE)) {
                Some(page) => now.copy_from_slice(&page[within..within + now.len()]),
                None => now.fill(0),
            }
            (at, rest) = (at + now.len() as u64, later);
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.len = self.len.max(offset + data.len() as u64);
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (now, later) = rest.split_at((PAGE as usize - within).min(rest.len()));
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            (at, rest) = (at + now.len() as u64, later);
        }
    }

    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &[byte[0] ^ (1 << bit)]);
    }

    fn set_len(&mut self, len: u64) {
        self.pages.retain(|page, _| page * PAGE < len);
        if len < self.len
            && let Some(page) = self.pages.get_mut(&(len / PAGE))
        {
            Arc::make_mut(page)[(len % PAGE) as usize..].fill(0);
        }
        self.len = len;
    }
}

/// What was done to the disk and may be lost until the next sync.
#[derive(Clone, Debug)]
enum Unsynced {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

impl Unsynced {
    fn apply(&self, image: &mut Image) {
        match self {
            Unsynced::Write(offset, data) => image.write(*offset, data),
            Unsynced::SetLen(len) => image.set_len(*len),
        }
    }

    /// A part of a write: up to some byte, from some byte on, or with a hole.
    fn tear(&self, image: &mut Image, rng: &mut StdRng) {
        let Unsynced::Write(offset, data) = self else {
            return;
        };
        let (one, other) = (rng.random_range(0..=data.len()), rng.random_range(0..=data.len()));
        let (from, to) = (one.min(other), one.max(other));
        if rng.random() {
            image.write(offset + from as u64, &data[from..to]);
        } else {
            image.write(*offset, &data[..from]);
            image.write(offset + to as u64, &data[to..]);
        }
    }
}

/// A moment at which the machine may stop: while a sync is under way.
#[derive(Clone)]
pub(super) struct Moment {
    synced: Image,
    unsynced: Vec<Unsynced>,
}

impl Moment {
    /// What the disk may hold after the crash: nothing of what was not synced, all of it, and
    /// `random` times some of it in any order's subset, with torn writes.
    pub(super) fn images(&self, random: usize, rng: &mut StdRng) -> Vec<Image> {
        let mut images = vec![self.synced.clone(), self.some(|_| Fate::Kept, rng)];
        for _ in 0..random {
            let torn = rng.random_bool(0.5);
            let fate = |rng: &mut StdRng| match rng.random_range(0..4) {
                0 | 1 => Fate::Kept,
                2 if torn => Fate::Torn,
                _ => Fate::Lost,
            };
            images.push(self.some(fate, rng));
        }
        images
    }

    fn some(&self, fate: impl Fn(&mut StdRng) -> Fate, rng: &mut StdRng) -> Image {
        let mut image = self.synced.clone();
        for step in &self.unsynced {
            match fate(rng) {
                Fate::Kept => step.apply(&mut image),
                Fate::Torn => step.tear(&mut image, rng),
                Fate::Lost => {}
            }
        }
        image
    }
}

enum Fate {
    Kept,
    Torn,
    Lost,
}

/// A call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Sync,
    Write,
    SetLen,
}

type OnSync = Box<dyn FnMut(Moment) + Send>;

#[derive(Default)]
struct State {
    now: Image,
    synced: Image,
    unsynced: Vec<Unsynced>,
    on_sync: Option<OnSync>,
    // The call of this kind that many calls ahead fails, once.
    failing: Option<(Call, u32)>,
}

/// The disk. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub(super) fn of(image: Image) -> Self {
        let disk = Self::default();
        *disk.state.lock() = State { now: image.clone(), synced: image, ..State::default() };
        disk
    }

    /// Tells every moment of a sync from here on.
    pub(super) fn on_sync(&self, told: impl FnMut(Moment) + Send + 'static) {
        self.state.lock().on_sync = Some(Box::new(told));
    }

    /// Lets the `nth` call from now on fail, once; 1 is the next.
    pub(super) fn fail(&self, call: Call, nth: u32) {
        self.state.lock().failing = Some((call, nth));
    }

    /// What the program sees.
    pub(super) fn image(&self) -> Image {
        self.state.lock().now.clone()
    }

    /// The disk if the machine stopped at this moment.
    pub(super) fn moment(&self) -> Moment {
        self.state.lock().moment()
    }
}

impl State {
    fn moment(&self) -> Moment {
        Moment { synced: self.synced.clone(), unsynced: self.unsynced.clone() }
    }

    fn count(&mut self, call: Call) -> Result<(), io::Error> {
        if let Some((failing, left)) = &mut self.failing
            && *failing == call
        {
            *left -= 1;
            if *left == 0 {
                self.failing = None;
                return Err(io::Error::other("injected"));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Unsynced) {
        step.apply(&mut self.now);
        self.unsynced.push(step);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state.lock().now.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state.lock();
        if offset + out.len() as u64 > state.now.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.now.read(offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.state.lock();
        state.count(Call::SetLen)?;
        state.step(Unsynced::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.state.lock();
        let moment = state.moment();
        if let Some(told) = &mut state.on_sync {
            told(moment);
        }
        state.count(Call::Sync)?;
        state.unsynced.clear();
        state.synced = state.now.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.state.lock();
        state.count(Call::Write)?;
        state.step(Unsynced::Write(offset, data.into()));
        Ok(())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

#[test]
fn a_crash_keeps_what_was_synced_and_anything_of_what_was_not() {
    let disk = Disk::default();
    disk.set_len(8192).unwrap();
    disk.write(4094, b"synced").unwrap();
    disk.sync_data().unwrap();
    disk.write(4094, b"lost!!").unwrap();
    disk.set_len(4096).unwrap();
    let mut rng = kit::test::rng(1);
    let images = disk.moment().images(50, &mut rng);
    let text = |image: &Image| {
        let mut out = [0; 6];
        image.read(4094, &mut out);
        (image.len(), String::from_utf8_lossy(&out).into_owned())
    };
    assert_eq!(text(&images[0]), (8192, "synced".into()));
    assert_eq!(text(&images[1]), (4096, "lo\0\0\0\0".into()));
    let torn = |(len, text): (u64, String)| len == 8192 && text != "synced" && text != "lost!!";
    assert!(images.iter().any(|image| torn(text(image))));
    disk.fail(Call::Sync, 2);
    assert_eq!(
        [disk.sync_data().is_ok(), disk.sync_data().is_ok(), disk.sync_data().is_ok()],
        [true, false, true]
    );
}
