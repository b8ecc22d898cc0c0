//! One thread that starts every process of this edge.
//!
//! The kernel ties a process's parent-death signal to the thread that forked it, so processes
//! are started from a thread that lives as long as the edge and not from a runtime's worker.
//! When the last [`Spawner`] is dropped the thread ends, and with it every process that is left.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{SyncSender, sync_channel},
};
use tokio::sync::oneshot;

/// Starts waiting for the thread.
const QUEUE: usize = 256;
/// What a server sees of our environment: what it needs to run, none of our secrets. The same
/// list as the official SDKs', and what locale, time zone and temporary files need.
const INHERITED: [&str; 13] = [
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
];

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) exec: PathBuf,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<PathBuf>,
}

type Order = (Recipe, oneshot::Sender<io::Result<Child>>);

/// A handle on the thread.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    orders: SyncSender<Order>,
}

impl Spawner {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = sync_channel::<Order>(QUEUE);
        std::thread::Builder::new().name("backend-spawner".into()).spawn(move || {
            while let Ok((recipe, answer)) = inbox.recv() {
                if let Err(Ok(mut unwanted)) = answer.send(recipe.spawn()) {
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
        })?;
        Ok(Spawner { orders })
    }

    pub(crate) async fn spawn(&self, recipe: Recipe) -> io::Result<Child> {
        let (answer, child) = oneshot::channel();
        self.orders
            .try_send((recipe, answer))
            .map_err(|_| io::Error::other("too many processes are starting"))?;
        child.await.map_err(io::Error::other)?
    }
}

impl Recipe {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.exec);
        command
            .arg(super::exec::SUBCOMMAND)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(OsString::from(&self.command))
            .args(&self.args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command.spawn()
    }
}
