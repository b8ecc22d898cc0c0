//! Child processes that say `ready …` on stdout and never outlive their test.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take to say that it is ready.
const READY: Duration = Duration::from_secs(30);

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `swarm` binary of this build.
///
/// # Errors
/// When it was not built: integration tests of another package do not build it by themselves.
pub fn swarm_binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("no target folder")?;
    let binary = profile.join("swarm");
    if !binary.exists() {
        bail!("{} is not built; run `cargo build --workspace --all-targets` first", binary.display());
    }
    Ok(binary)
}

/// A running child with what its ready line said.
pub struct Process {
    child: Child,
    /// `key=value` pairs of the ready line; a lone URL is under `url`.
    pub ready: BTreeMap<String, String>,
    log: PathBuf,
}

impl Process {
    /// Starts a command and waits for its ready line; stderr goes to `log`.
    pub async fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let stderr = File::options().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let found = timeout(READY, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(facts) = line.strip_prefix("ready ") {
                    return anyhow::Ok(Some(parse_ready(facts)));
                }
            }
            Ok(None)
        });
        let ready = match found.await {
            Ok(Ok(Some(ready))) => ready,
            other => bail!("{command:?} did not get ready ({other:?}):\n{}", tail(log)),
        };
        // Whatever it still prints is read, so that it never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Process { child, ready, log: log.to_owned() })
    }

    /// A fact of the ready line.
    pub fn fact(&self, key: &str) -> &str {
        self.ready.get(key).map_or("", String::as_str)
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill")
    }

    /// SIGTERM, and waits for the end of its drain.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let pid = rustix::process::Pid::from_raw(pid).context("pid 0")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        timeout(Duration::from_secs(40), self.child.wait()).await?.context("cannot wait")
    }

    /// The last lines of its stderr.
    pub fn log(&self) -> String {
        tail(&self.log)
    }
}

fn parse_ready(facts: &str) -> BTreeMap<String, String> {
    facts
        .split_whitespace()
        .map(|fact| match fact.split_once('=') {
            Some((key, value)) if !key.contains(':') => (key.to_owned(), value.to_owned()),
            _ => ("url".to_owned(), fact.to_owned()),
        })
        .collect()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Processes whose command line contains `needle` (the children of a node, say).
pub fn processes_with(needle: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(needle)
        })
        .collect()
}
