//! `backend-exec`: the small supervisor between the edge and a stdio server.
//!
//! The edge starts `<binary> backend-exec --parent PID -- COMMAND ARGS...`. The supervisor asks
//! the kernel for a SIGTERM when its parent dies, checks that the parent is still the one that
//! started it (it may have died before the request), puts the command in its own process group
//! and adopts orphans. When the command ends, the parent dies or a signal comes, everything
//! below ends: TERM, a grace, KILL, reaped. `npx` and `uvx` start the real server as a
//! grandchild; ending the direct child alone would leak it (CVE-free, but 2,000 processes).
//!
//! The parent-death signal is tied to the *thread* that spawned: see `super::spawner`.

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group,
    set_child_subreaper, set_parent_process_death_signal, setrlimit, wait,
};
use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep_until},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "backend-exec";

/// How long the group may take after TERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long reaping may take after KILL.
const REAP: Duration = Duration::from_secs(1);
/// Open files of a server.
const OPEN_FILES: u64 = 4096;

/// Runs the subcommand with the arguments that follow its name. The exit code is the
/// command's, 128 + n for a signal, 126 or 127 when it could not be started.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some((parent, command)) = parse(args) else {
        return complain("usage: backend-exec --parent PID -- COMMAND [ARGS]", 2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(supervise(parent, command))) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::NotFound => complain(&error.to_string(), 127),
        Err(error) => complain(&error.to_string(), 126),
    }
}

fn complain(why: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "backend-exec: {why}");
    ExitCode::from(code)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Option<(i32, Vec<OsString>)> {
    let mut args = args.into_iter();
    let flag = args.next()?;
    let parent = args.next()?.to_str()?.parse().ok()?;
    let dashes = args.next()?;
    let command: Vec<OsString> = args.collect();
    (flag == "--parent" && dashes == "--" && !command.is_empty()).then_some((parent, command))
}

async fn supervise(parent: i32, command: Vec<OsString>) -> io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child_ended = signal(SignalKind::child())?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Ok(0);
    }
    set_child_subreaper(Some(getpid()))?;
    limit();
    let mut group = Group::start(command)?;
    while group.status.is_none() {
        tokio::select! {
            _ = child_ended.recv() => { group.reap(); }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    group.end().await;
    Ok(group.status.unwrap_or(128 + 15))
}

/// No core dumps, and not more files than a server can want. A limit that the system refuses
/// to lower is left as it is.
fn limit() {
    let lower = |resource, value| {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let value = maximum.map_or(value, |maximum| maximum.min(value));
        let _ = setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    };
    lower(Resource::Core, 0);
    lower(Resource::Nofile, OPEN_FILES);
}

/// The command and everything that it started.
struct Group {
    leader: Pid,
    status: Option<u8>,
}

impl Group {
    fn start(command: Vec<OsString>) -> io::Result<Self> {
        let mut words = command.into_iter();
        let program = words.next().unwrap_or_default();
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot start {}: {error}", program.display()))
        };
        let child = Command::new(&program).args(words).process_group(0).spawn().map_err(failed)?;
        let raw = i32::try_from(child.id()).unwrap_or_default();
        let leader = Pid::from_raw(raw).ok_or_else(|| io::Error::other("no process id"))?;
        Ok(Group { leader, status: None })
    }

    /// Collects what has ended. False when no child is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader => {
                    let signal = || status.terminating_signal().map(|signal| signal + 128);
                    let code = status.exit_status().or_else(signal).unwrap_or(1);
                    self.status = Some(u8::try_from(code).unwrap_or(1));
                }
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    async fn end(&mut self) {
        let _ = kill_process_group(self.leader, Signal::TERM);
        if self.gone_by(Instant::now() + GRACE, Signal::TERM).await {
            return;
        }
        let _ = kill_process_group(self.leader, Signal::KILL);
        self.gone_by(Instant::now() + REAP, Signal::KILL).await;
    }

    /// Waits for the end of all children. One that left the group (`setsid`) becomes ours only
    /// when its parent ends, so who is new is looked for again and again, and signalled once.
    async fn gone_by(&mut self, deadline: Instant, signal: Signal) -> bool {
        let mut tick = interval(Duration::from_millis(10));
        let mut told = HashSet::from([self.leader]);
        while self.reap() {
            for pid in children() {
                if told.insert(pid) {
                    let _ = kill_process(pid, signal);
                }
            }
            tokio::select! {
                _ = tick.tick() => {}
                () = sleep_until(deadline) => return false,
            }
        }
        true
    }
}

/// Direct children, adopted ones included.
fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>());
    pids.filter_map(Result::ok).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_starts_after_the_dashes() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(parse(words("--parent 7 -- a --b")), Some((7, words("a --b"))));
        for bad in ["--parent x -- a", "--parent 7 a", "--parent 7 --", "-- a"] {
            assert_eq!(parse(words(bad)), None, "{bad}");
        }
    }
}
