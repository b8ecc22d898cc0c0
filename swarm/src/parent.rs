//! A process that must not outlive the one that started it.

use rustix::process::{Pid, getppid};
use std::time::Duration;

/// Ends this process when `parent` is gone, however it went. Call it first thing in main.
///
/// On Linux the kernel does it; elsewhere a thread looks every 200 ms.
///
/// # Errors
/// When the parent is gone already.
pub fn die_with(parent: u32) -> Result<(), String> {
    arm();
    let still = move || getppid().map(Pid::as_raw_pid) == i32::try_from(parent).ok();
    if !still() {
        return Err(format!("the parent process {parent} is gone"));
    }
    std::thread::Builder::new()
        .name("parent-watch".into())
        .spawn(move || {
            while still() {
                std::thread::sleep(Duration::from_millis(200));
            }
            std::process::exit(1);
        })
        .map(drop)
        .map_err(|error| format!("cannot watch the parent process: {error}"))
}

#[cfg(target_os = "linux")]
fn arm() {
    // Best effort: the watching thread does the same, a little later.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(target_os = "linux"))]
fn arm() {}
