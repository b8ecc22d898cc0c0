//! The demo's temporary directory, and how its controls find it.

use crate::error::{CliError, Failure};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

const PREFIX: &str = "swarm-demo-";
const CONTROL: &str = "control.json";

/// A directory only for this user, named after the process; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// How `swarm demo kill` reaches the demo.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Control {
    /// Its admin URL.
    pub(super) admin: String,
    /// What it wants to see.
    pub(super) token: String,
}

impl Folder {
    /// Makes it, and removes what demos that were killed left behind.
    pub(super) fn create() -> Result<Folder, CliError> {
        for (path, pid) in existing() {
            if !alive(pid) {
                let _ = fs::remove_dir_all(path);
            }
        }
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            CliError::new(Failure::Failed, format!("cannot create {}", path.display())).cause(error)
        })?;
        Ok(Folder { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the controls find this demo.
    pub(super) fn publish(&self, control: &Control) -> Result<(), CliError> {
        let text = serde_json::to_vec(control).map_err(anyhow::Error::from)?;
        fs::write(self.path.join(CONTROL), text).map_err(anyhow::Error::from)?;
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The demos of this user that run now.
pub(super) fn running() -> Vec<Control> {
    let living = existing().into_iter().filter(|(_, pid)| alive(*pid));
    living.filter_map(|(path, _)| serde_json::from_slice(&fs::read(path.join(CONTROL)).ok()?).ok()).collect()
}

/// Folders of this user's demos, with the process ids in their names.
fn existing() -> Vec<(PathBuf, i32)> {
    let own = rustix::process::getuid().as_raw();
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == own))
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((entry.path(), pid))
        })
        .collect()
}

fn alive(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}
