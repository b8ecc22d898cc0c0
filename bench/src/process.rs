//! This binary again, in a process of its own, and what the kernel says of it.

use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A child that ends with its owner.
pub(crate) struct Process {
    child: Child,
    /// The ready line's facts.
    ready: String,
}

impl Process {
    /// Runs `bench <arguments>` and waits for its ready line on stdout.
    pub(crate) fn start(arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        if std::env::var_os("BENCH_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        for line in BufReader::new(stdout).lines() {
            if let Some(ready) = line?.strip_prefix("ready ") {
                return Ok(Process { child, ready: ready.to_owned() });
            }
        }
        let _ = child.kill();
        bail!("{arguments:?} did not get ready; BENCH_VERBOSE=1 shows why")
    }

    /// A `key=value` of the ready line.
    pub(crate) fn fact(&self, key: &str) -> Result<&str> {
        self.ready
            .split_whitespace()
            .find_map(|fact| fact.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("no {key} in {:?}", self.ready))
    }

    /// User and system time so far, in seconds (Linux: /proc/PID/stat).
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(')').next().context("no stat")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields.get(11).context("no utime")?.parse::<f64>()?
            + fields.get(12).context("no stime")?.parse::<f64>()?;
        Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory in bytes (Linux: VmRSS).
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        resident_bytes(&self.child.id().to_string())
    }
}

/// The same of this process.
pub(crate) fn own_resident_bytes() -> Result<f64> {
    resident_bytes("self")
}

fn resident_bytes(process: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
