//! The files: `flags.json`, the copy of its last good content, and the lock of those who write.

use super::document::{BYTES_MAX, Document};
use crate::{clock::Timestamp, data_dir::write_durably};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often, and how long, a writer asks for the lock.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Two writes closer than this may leave the same time on a file.
const SAME_TICK_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct FileStore {
    path: PathBuf,
    last_good: PathBuf,
    seen: Option<Stamp>,
}

/// What tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
    /// Old enough that a further write leaves another time.
    settled: bool,
}

/// What a look at the file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    Missing,
    Content(Vec<u8>),
}

impl FileStore {
    /// The copy of the last good content lies in `data`, else beside the file.
    pub(super) fn new(path: PathBuf, data: Option<&Path>) -> Self {
        let beside = path.with_extension("last-good.json");
        let last_good = data.map_or(beside, |data| data.join("flags.last-good.json"));
        Self { path, last_good, seen: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file if it may have changed since the last look.
    pub(super) fn look(&mut self, now: Timestamp) -> io::Result<Look> {
        let before = self.seen.take();
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Err(io::Error::other("not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Missing),
            Err(error) => return Err(error),
        };
        let changed_ms = u64::try_from(metadata.ctime()).unwrap_or(0) * 1000;
        let stamp = Stamp {
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: now.0.saturating_sub(changed_ms) > 1000 + SAME_TICK_MS,
        };
        if before == Some(stamp) && stamp.settled {
            self.seen = before;
            return Ok(Look::Same);
        }
        let content = read_bounded(&self.path)?;
        self.seen = Some(stamp);
        Ok(Look::Content(content))
    }

    /// The last good content, if there is any.
    pub(super) fn last_good(&self) -> Option<Document> {
        let content = read_bounded(&self.last_good).ok()?;
        Document::parse(&content).ok()
    }

    pub(super) fn keep(&self, document: &Document) -> io::Result<()> {
        write_durably(&self.last_good, document.to_text().as_bytes())
    }

    /// Replaces the file.
    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.seen = None;
        write_durably(&self.path, text.as_bytes())
    }

    /// Puts content that is no good aside, for whoever wrote it.
    pub(super) fn put_aside(&self) -> io::Result<()> {
        match fs::copy(&self.path, self.path.with_extension("bad.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The lock of those who write, across processes; `None` when another one keeps it.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = self.path.with_extension("lock");
        let lock = File::options().create(true).write(true).truncate(false).open(file)?;
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// One byte more than is allowed shows that the file is too large.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = u64::try_from(BYTES_MAX + 1).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}
