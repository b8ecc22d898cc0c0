//! Who changed what, when and why: one JSON object a line, in two files of bounded size.

use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// A file that reached this size is put aside; the one put aside before goes.
const BYTES_MAX: u64 = 1024 * 1024;
/// Records kept of flags in memory.
const MEMORY_MAX: usize = 1000;

/// One flag that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, in ms since the Unix epoch.
    pub time: u64,
    /// Who, as they said.
    pub actor: String,
    /// The flag.
    pub key: String,
    /// What it was, in words.
    pub old: String,
    /// What it became, in words.
    pub new: String,
    /// Why.
    pub reason: String,
    /// The revision that this made. A record is written before its change: one above the flags'
    /// revision was cut off by a crash.
    pub revision: u64,
}

#[derive(Debug)]
pub(super) enum Audit {
    Memory(VecDeque<Record>),
    Files { current: PathBuf, before: PathBuf },
}

impl Audit {
    pub(super) fn in_memory() -> Self {
        Audit::Memory(VecDeque::new())
    }

    /// Beside `flags.json`: `flags.audit.jsonl` and `flags.audit.1.jsonl`.
    pub(super) fn beside(flags: &Path) -> Self {
        Audit::Files {
            current: flags.with_extension("audit.jsonl"),
            before: flags.with_extension("audit.1.jsonl"),
        }
    }

    /// On the disk when it returns.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        match self {
            Audit::Memory(kept) => {
                kept.extend(records.iter().cloned());
                kept.drain(..kept.len().saturating_sub(MEMORY_MAX));
                Ok(())
            }
            Audit::Files { current, before } => append_to(current, before, records),
        }
    }

    /// The newest first, of one flag or all.
    pub(super) fn read(&self, key: Option<&str>, limit: usize) -> io::Result<Vec<Record>> {
        let wanted = |record: &Record| key.is_none_or(|key| record.key == key);
        let mut records: Vec<Record> = match self {
            Audit::Memory(kept) => kept.iter().filter(|record| wanted(record)).cloned().collect(),
            Audit::Files { current, before } => {
                let mut all = read_from(before)?;
                all.extend(read_from(current)?);
                all.into_iter().filter(wanted).collect()
            }
        };
        records.reverse();
        records.truncate(limit);
        Ok(records)
    }
}

fn append_to(current: &Path, before: &Path, records: &[Record]) -> io::Result<()> {
    if fs::metadata(current).is_ok_and(|file| file.len() >= BYTES_MAX) {
        fs::rename(current, before)?;
    }
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    let mut file = File::options().create(true).append(true).read(true).open(current)?;
    if !ends_with_newline(&mut file)? {
        // A crash cut the last record off: it stays a line of its own.
        lines.insert(0, b'\n');
    }
    file.write_all(&lines)?;
    file.sync_all()
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0; 1];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Lines that do not parse (cut off by a crash) are skipped.
fn read_from(file: &Path) -> io::Result<Vec<Record>> {
    let mut text = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(2 * BYTES_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: u64, reason: &str) -> Record {
        let word = |text: &str| text.to_owned();
        Record {
            time: 1,
            actor: word("a"),
            key: format!("k{}", revision % 2),
            old: word("off"),
            new: word("on"),
            reason: word(reason),
            revision,
        }
    }

    #[test]
    fn records_are_read_newest_first_and_by_key() {
        let dir = tempfile::tempdir().unwrap();
        for mut audit in [Audit::in_memory(), Audit::beside(&dir.path().join("flags.json"))] {
            assert_eq!(audit.read(None, 10).unwrap(), []);
            audit.append(&[record(1, "x"), record(2, "x")]).unwrap();
            audit.append(&[record(3, "x")]).unwrap();
            let revisions =
                |key, limit| audit.read(key, limit).unwrap().iter().map(|r| r.revision).collect::<Vec<_>>();
            assert_eq!(revisions(None, 2), [3, 2]);
            assert_eq!(revisions(Some("k1"), 10), [3, 1]);
        }
        assert!(dir.path().join("flags.audit.jsonl").is_file());
    }

    #[test]
    fn a_cut_record_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::beside(&dir.path().join("flags.json"));
        audit.append(&[record(1, "x")]).unwrap();
        let file = dir.path().join("flags.audit.jsonl");
        let mut text = fs::read(&file).unwrap();
        let cut = text.len() / 2;
        text.extend_from_within(..cut);
        fs::write(&file, text).unwrap();
        audit.append(&[record(2, "x")]).unwrap();
        let revisions: Vec<_> = audit.read(None, 10).unwrap().iter().map(|r| r.revision).collect();
        assert_eq!(revisions, [2, 1]);
    }

    #[test]
    fn the_files_stay_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::beside(&dir.path().join("flags.json"));
        let long = "r".repeat(64 * 1024);
        for revision in 0..60 {
            audit.append(&[record(revision, &long)]).unwrap();
        }
        let sizes = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() < 3 * BYTES_MAX);
        assert_eq!(audit.read(None, 1).unwrap()[0].revision, 59);
    }
}
