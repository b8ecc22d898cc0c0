//! Helpers for tests of every crate.

pub use crate::mem_net::MemNet;

use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    env,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

/// Polls until `check` gives a value.
///
/// # Panics
/// With `what` when the deadline passes.
pub async fn eventually<F, Fut, T>(what: &str, deadline: Duration, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let polling = async {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    };
    match tokio::time::timeout(deadline, polling).await {
        Ok(value) => value,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}

/// The seed of this run: `SWARM_SEED`, else random. Printed, so that a failure can be replayed.
#[allow(clippy::print_stderr)]
pub fn seed() -> u64 {
    let seed = env::var("SWARM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("seed: replay with SWARM_SEED={seed}");
    seed
}

/// A generator whose draws follow from the seed.
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// An external program that a test needs, searched in `$SWARM_<NAME>` (a path to it),
/// `$SWARM_PREPARED/bin`, `<workspace>/target/prepared/bin` and `$PATH`. When it is missing, a
/// loud line says so and the test is skipped by the caller.
///
/// # Panics
/// When it is missing and `SWARM_REQUIRE_ALL=1`.
#[allow(clippy::print_stderr)]
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = candidates(name).into_iter().find(|path| path.is_file());
    if found.is_none() {
        let all = env::var("SWARM_REQUIRE_ALL").is_ok_and(|value| value == "1");
        eprintln!("{}", missing(name, all));
    }
    found
}

fn missing(name: &str, all: bool) -> String {
    assert!(!all, "{name} is missing and SWARM_REQUIRE_ALL=1");
    format!("SKIPPED: {name} is missing (looked at SWARM_PREPARED, target/prepared and PATH)")
}

fn candidates(name: &str) -> Vec<PathBuf> {
    let variable = format!("SWARM_{}", name.replace('-', "_").to_uppercase());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut candidates: Vec<PathBuf> = env::var_os(variable).map(PathBuf::from).into_iter().collect();
    let prepared = env::var_os("SWARM_PREPARED").map(PathBuf::from);
    candidates.extend(prepared.map(|dir| dir.join("bin").join(name)));
    candidates.push(workspace.join("target/prepared/bin").join(name));
    let path = env::var_os("PATH").unwrap_or_default();
    candidates.extend(env::split_paths(&path).map(|dir| dir.join(name)));
    candidates
}

/// A service's binary checks its flags at the start: gates that are wrong end it with exit code 78
/// and words that say how.
///
/// # Panics
/// When it does not.
pub fn refuses_gates(binary: &str, gates: &str, how: &str) {
    let mut command = std::process::Command::new(binary);
    command.args(["--data", ":memory:", "--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    let output = command.env(crate::flags::GATES, gates).output();
    let output = output.unwrap_or_else(|error| panic!("{binary}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{words}");
    assert!(words.contains(how), "{words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_a_loud_skip() {
        assert_eq!(candidates("no-such-tool").into_iter().find(|path| path.is_file()), None);
        assert!(missing("no-such-tool", false).starts_with("SKIPPED: no-such-tool"));
    }

    #[test]
    #[should_panic(expected = "no-such-tool is missing and SWARM_REQUIRE_ALL=1")]
    fn a_missing_tool_fails_where_everything_is_required() {
        missing("no-such-tool", true);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: the sun rises")]
    async fn eventually_panics_with_what_it_waited_for() {
        eventually("the sun rises", Duration::from_secs(1), || async { None::<()> }).await;
    }
}
