//! What is in force and how it comes to change. Every method may touch the disk.

use super::{
    audit::{Audit, Record},
    change::{self, Change, ChangeError, Touched},
    definition::{Definition, Definitions},
    document::Document,
    gates::Gates,
    resolve::{Inputs, Snapshot},
    store::{FileStore, Look},
};
use crate::{
    clock::Timestamp,
    config::{ConfigError, EXIT_CONFIG},
};
use std::{fs::File, path::Path};

#[derive(Debug)]
pub(super) struct State {
    pub(super) known: Definitions,
    gates: Gates,
    /// In force.
    document: Document,
    store: Option<FileStore>,
    pub(super) audit: Audit,
    /// The file's content at the last look, good or bad.
    seen: Option<Look>,
    /// Whether what is in force is not yet kept as last good.
    unkept: bool,
    pub(super) problem: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The revision that it made.
    pub revision: u64,
    /// The flag, and with a cascade those that built on it; nothing when it was so already.
    pub touched: Vec<Touched>,
}

impl State {
    pub(super) fn in_memory(gates: Gates) -> Self {
        Self {
            known: Definitions::default(),
            gates,
            document: Document::default(),
            store: None,
            audit: Audit::in_memory(),
            seen: None,
            unkept: false,
            problem: None,
            warnings: Vec::new(),
        }
    }

    /// Starts from the last good copy, then looks at the file.
    pub(super) fn open(store: FileStore, gates: Gates, now: Timestamp) -> Self {
        let audit = Audit::beside(store.path());
        let kept = store.last_good();
        let was_kept = kept.is_some();
        let mut state =
            Self { document: kept.unwrap_or_default(), store: Some(store), audit, ..Self::in_memory(gates) };
        let never_set = !was_kept && state.path().is_some_and(|path| !path.exists());
        if !never_set {
            state.poll(now);
        }
        state
    }

    fn path(&self) -> Option<&Path> {
        self.store.as_ref().map(FileStore::path)
    }

    pub(super) fn in_file(&self) -> bool {
        self.store.is_some()
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs { known: &self.known, document: &self.document, gates: &self.gates }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.inputs().snapshot()
    }

    /// Learns flags, and holds what is set against them.
    pub(super) fn define(&mut self, definitions: Vec<Definition>) -> Result<(), ConfigError> {
        definitions.into_iter().for_each(|definition| self.known.insert(definition));
        self.gates.validate(&self.known)?;
        match self.document.validate(&self.known) {
            Ok(warnings) => self.warnings = warnings,
            Err(fault) => {
                self.refuse(fault.to_string());
                let kept = self.store.as_ref().and_then(FileStore::last_good);
                let good = kept.filter(|kept| kept.validate(&self.known).is_ok());
                self.document = good.unwrap_or_default();
                self.unkept = false;
            }
        }
        let unmet: Vec<_> = self.inputs().unmet().iter().map(ToString::to_string).collect();
        if unmet.is_empty() {
            return Ok(());
        }
        let origin = self.path().map_or("flags".into(), |path| path.display().to_string());
        Err(ConfigError::Invalid(format!("{origin}: {} (exit code {EXIT_CONFIG})", unmet.join("; "))))
    }

    /// Looks at the file. True when what is in force, or what is told about it, changed.
    pub(super) fn poll(&mut self, now: Timestamp) -> bool {
        let Some(store) = &mut self.store else {
            return false;
        };
        let look = match store.look(now) {
            Ok(look) => look,
            Err(error) => {
                self.seen = None;
                return self.refuse(error.to_string());
            }
        };
        if look == Look::Same || self.seen.as_ref() == Some(&look) {
            self.keep();
            return false;
        }
        let changed = match &look {
            // Nobody ever set a flag.
            Look::Missing if self.document == Document::default() => self.accept(Document::default()),
            Look::Missing => {
                self.refuse("the file is gone; write {\"flags\": {}} to set everything back".into())
            }
            Look::Content(content) => self.consider(content),
            Look::Same => false,
        };
        self.seen = Some(look);
        self.keep();
        changed
    }

    fn consider(&mut self, content: &[u8]) -> bool {
        let read = Document::parse(content).and_then(|document| {
            let warnings = document.validate(&self.known)?;
            Ok((document, warnings))
        });
        let (mut document, warnings) = match read {
            Ok(read) => read,
            Err(fault) => return self.refuse(fault.to_string()),
        };
        let unmet = Inputs { document: &document, ..self.inputs() }.unmet();
        // Before flags are known (at the start) this cannot be told; `define` does then.
        if let Some(unmet) = unmet.first() {
            return self.refuse(unmet.to_string());
        }
        let same = document.flags == self.document.flags && document.metadata == self.document.metadata;
        // Whoever edits by hand does not count revisions.
        let next = if same { self.document.revision } else { self.document.revision + 1 };
        document.revision = document.revision.max(next);
        self.warnings = warnings;
        self.accept(document)
    }

    fn accept(&mut self, document: Document) -> bool {
        let changed = self.problem.take().is_some() || document != self.document;
        self.unkept |= changed;
        self.document = document;
        changed
    }

    fn refuse(&mut self, fault: String) -> bool {
        let file = self.path().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let revision = self.document.revision;
        let words = format!("{}: {fault}; revision {revision} stays in force", file.unwrap_or_default());
        let changed = self.problem.as_ref() != Some(&words);
        if changed {
            tracing::warn!(problem = words, "flags: the file is not taken");
        }
        self.problem = Some(words);
        changed
    }

    /// Keeps what is in force as the last good copy. When that fails it is tried again at the next look.
    fn keep(&mut self) {
        let Some(store) = self.store.as_ref().filter(|_| self.unkept && !self.known.is_empty()) else {
            return;
        };
        match store.keep(&self.document) {
            Ok(()) => self.unkept = false,
            Err(error) => tracing::warn!(%error, "flags: the last good copy is not written"),
        }
    }

    pub(super) fn change(&mut self, change: &Change, now: Timestamp) -> Result<Changed, ChangeError> {
        let _lock = self.store.as_ref().map(lock).transpose()?;
        self.poll(now);
        let (next, touched) = change::apply(&self.known, &self.document, &self.gates, change)?;
        if touched.is_empty() && self.problem.is_none() {
            return Ok(Changed { revision: self.document.revision, touched });
        }
        let text = next.to_text();
        // A change that the next start would refuse to read must not be written.
        let next =
            Document::parse(text.as_bytes()).map_err(|fault| ChangeError::Invalid(fault.to_string()))?;
        let revision = next.revision;
        let record = |touched: &Touched| Record {
            time: now.0,
            actor: change.actor.clone(),
            key: touched.key.clone(),
            old: touched.old.clone(),
            new: touched.new.clone(),
            reason: change.reason.clone(),
            revision,
        };
        let records: Vec<_> = touched.iter().map(record).collect();
        let unaudited = |error| ChangeError::Store(format!("the audit cannot be written: {error}"));
        self.audit.append(&records).map_err(unaudited)?;
        let written = self.write(&text);
        // In force even when the disk failed half way: a kill must work.
        self.warnings = next.validate(&self.known).unwrap_or_default();
        self.accept(next);
        self.keep();
        written?;
        Ok(Changed { revision, touched })
    }

    fn write(&mut self, text: &str) -> Result<(), ChangeError> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        if self.problem.is_some() {
            let aside = store.put_aside();
            aside.unwrap_or_else(|error| tracing::warn!(%error, "flags: the bad file is not put aside"));
        }
        let name = store.path().display().to_string();
        store.write(text).map_err(|error| ChangeError::Unknown(format!("{name}: {error}")))?;
        self.seen = Some(Look::Content(text.as_bytes().to_vec()));
        Ok(())
    }
}

fn lock(store: &FileStore) -> Result<File, ChangeError> {
    let name = store.path().display().to_string();
    let held = store.lock().map_err(|error| ChangeError::Store(format!("{name}: {error}")))?;
    held.ok_or(ChangeError::Busy(name))
}
