//! The data directory: one process at a time, and a count of the starts.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("data directory {} is in use by another process; give this one another --data or --name", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("data directory {}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in it is not what it should be.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A directory that this process holds until it is dropped.
#[derive(Debug)]
pub struct OpenDataDir {
    path: PathBuf,
    generation: u64,
    _lock: File,
}

impl OpenDataDir {
    /// Creates the directory if need be, locks it, and counts this start: the generation is
    /// the time in ms, or one more than the last when the clock went back.
    pub fn open(path: PathBuf, now_ms: u64) -> Result<Self, DataDirError> {
        fs::create_dir_all(&path).map_err(|source| failed(&path, source))?;
        let lock = lock(&path)?;
        let file = path.join("generation");
        let generation = last_generation(&file)?.map_or(now_ms, |last| now_ms.max(last + 1));
        write_durably(&file, format!("{generation}\n").as_bytes()).map_err(|source| failed(&file, source))?;
        Ok(Self { path, generation, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The generation of this start.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join("LOCK");
    let lock = File::options().create(true).write(true).truncate(false).open(&file);
    let lock = lock.map_err(|source| failed(&file, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(&file, source)),
    }
}

fn last_generation(file: &Path) -> Result<Option<u64>, DataDirError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(file, source)),
    };
    let last = text.trim().parse().map_err(|_| DataDirError::Damaged {
        path: file.into(),
        reason: format!("{:?} is not a generation", text.chars().take(32).collect::<String>()),
    })?;
    Ok(Some(last))
}

/// Replaces a file so that a crash leaves the old or the new content, never a part.
pub fn write_durably(file: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("tmp");
    let mut out = File::create(&temporary)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_grows_even_when_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| OpenDataDir::open(dir.path().join("n1"), now).unwrap().generation();
        assert_eq!(open(1000), 1000);
        assert_eq!(open(10), 1001);
        assert_eq!(open(5000), 5000);
    }

    #[test]
    fn a_second_holder_is_told_that_the_directory_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let first = OpenDataDir::open(dir.path().into(), 1).unwrap();
        let second = OpenDataDir::open(dir.path().into(), 1).unwrap_err();
        assert!(matches!(second, DataDirError::InUse { .. }));
        assert!(second.to_string().contains("in use by another process"));
        drop(first);
        OpenDataDir::open(dir.path().into(), 1).unwrap();
    }

    #[test]
    fn a_damaged_generation_is_told_and_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("generation"), "garbage").unwrap();
        let error = OpenDataDir::open(dir.path().into(), 1).unwrap_err();
        assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
    }
}
