//! What edges say of backends: soft state with a time to live.

use proto::registry::{BackendReport, BackendStatus};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Reports by backend and edge.
#[derive(Debug)]
pub(crate) struct StatusBoard {
    reports: BTreeMap<String, BTreeMap<String, Report>>,
    len: usize,
    limit: usize,
    tool_bytes: usize,
    ttl: Duration,
    counter: u64,
}

#[derive(Debug)]
struct Report {
    status: BackendStatus,
    // Told to this instance by the edge, not by a peer.
    local: bool,
    counter: u64,
    end: Instant,
}

/// Tool names that all reports together may carry, in bytes. Over it a report is kept without
/// them: its backend is then not found by its tools.
const TOOL_BYTES_MAX: usize = 64 << 20;

/// The board is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl StatusBoard {
    pub(crate) fn new(limit: usize, ttl: Duration) -> Self {
        Self { reports: BTreeMap::new(), len: 0, limit, tool_bytes: 0, ttl, counter: 0 }
    }

    /// Counts local reports; a reader that saw it asks for what came after.
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Takes a report over the edge's earlier one. What a peer tells does not replace what the
    /// edge itself told this instance.
    pub(crate) fn put(
        &mut self,
        name: &str,
        mut status: BackendStatus,
        local: bool,
        now: Instant,
    ) -> Result<(), Full> {
        let known = self.reports.get(name).and_then(|edges| edges.get(&status.edge));
        if !local && known.is_some_and(|report| report.local && report.end > now) {
            return Ok(());
        }
        if known.is_none() {
            if self.len >= self.limit {
                self.sweep(now);
            }
            if self.len >= self.limit {
                return Err(Full);
            }
            self.len += 1;
        }
        let known_bytes = self.known_tool_bytes(name, &status.edge);
        if self.tool_bytes - known_bytes + tool_bytes(&status) > TOOL_BYTES_MAX {
            status.tool_names.clear();
        }
        self.tool_bytes = self.tool_bytes - known_bytes + tool_bytes(&status);
        self.counter += u64::from(local);
        let report = Report { local, counter: self.counter, end: now + self.ttl, status };
        self.reports.entry(name.to_owned()).or_default().insert(report.status.edge.clone(), report);
        Ok(())
    }

    /// What edges say of a backend now, in order of edge.
    pub(crate) fn of(&self, name: &str, now: Instant) -> Vec<BackendStatus> {
        let edges = self.reports.get(name).into_iter().flat_map(BTreeMap::values);
        edges.filter(|report| report.end > now).map(|report| report.status.clone()).collect()
    }

    /// Whether an edge says that a backend has a tool.
    pub(crate) fn offers(&self, name: &str, tool: &str, now: Instant) -> bool {
        let mut edges = self.reports.get(name).into_iter().flat_map(BTreeMap::values);
        edges.any(|report| report.end > now && report.status.tool_names.iter().any(|name| name == tool))
    }

    /// Local reports that came after a counter.
    pub(crate) fn since(&self, counter: u64, now: Instant) -> Vec<BackendReport> {
        let all =
            self.reports.iter().flat_map(|(name, edges)| edges.values().map(move |report| (name, report)));
        all.filter(|(_, report)| report.local && report.counter > counter && report.end > now)
            .map(|(name, report)| BackendReport { name: name.clone(), status: Some(report.status.clone()) })
            .collect()
    }

    /// Forgets what was not repeated.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.reports.retain(|_, edges| {
            edges.retain(|_, report| report.end > now);
            !edges.is_empty()
        });
        let left = || self.reports.values().flat_map(BTreeMap::values);
        (self.len, self.tool_bytes) = (left().count(), left().map(|report| tool_bytes(&report.status)).sum());
    }

    fn known_tool_bytes(&self, name: &str, edge: &str) -> usize {
        let known = self.reports.get(name).and_then(|edges| edges.get(edge));
        known.map_or(0, |report| tool_bytes(&report.status))
    }
}

fn tool_bytes(status: &BackendStatus) -> usize {
    status.tool_names.iter().map(String::len).sum()
}

/// The status that an operator must see first: the worst, then the newest.
pub(crate) fn worst(statuses: &[BackendStatus]) -> Option<&BackendStatus> {
    statuses.iter().max_by_key(|status| (severity(&status.state), status.observed_at_ms))
}

fn severity(state: &str) -> u8 {
    match state {
        "ready" => 0,
        "starting" => 1,
        "stopped" => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(edge: &str, state: &str) -> BackendStatus {
        BackendStatus { edge: edge.into(), state: state.into(), ..Default::default() }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_worst_is_shown_and_what_is_not_repeated_is_forgotten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut board = StatusBoard::new(2, Duration::from_secs(30));
        board.put("time", status("e1", "ready"), true, at(0)).unwrap();
        board.put("time", status("e2", "failing"), false, at(20)).unwrap();
        assert_eq!(worst(&board.of("time", at(20))).unwrap().state, "failing");
        assert_eq!(board.put("git", status("e1", "ready"), true, at(20)), Err(Full));
        assert_eq!(board.of("time", at(30)).len(), 1);
        board.put("git", status("e1", "ready"), true, at(30)).unwrap();
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_backend_offers_what_an_edge_reports_for_as_long_as_it_counts() {
        let start = Instant::now();
        let mut board = StatusBoard::new(2, Duration::from_secs(30));
        let with = |tools: &[&str]| BackendStatus {
            tool_names: tools.iter().map(|tool| tool.to_string()).collect(),
            ..status("e1", "ready")
        };
        board.put("time", with(&["now", "zones"]), true, start).unwrap();
        assert!(board.offers("time", "zones", start) && !board.offers("git", "zones", start));
        assert_eq!(board.tool_bytes, 8);
        board.put("time", with(&["now"]), true, start).unwrap();
        assert!(!board.offers("time", "zones", start));
        assert_eq!(board.tool_bytes, 3);
        let huge = "x".repeat(TOOL_BYTES_MAX);
        board.put("git", with(&[&huge]), true, start).unwrap();
        assert!(!board.offers("git", &huge, start), "over the limit");
        assert_eq!(board.of("git", start).len(), 1, "the report itself is kept");
        board.sweep(start + Duration::from_secs(30));
        assert_eq!(board.tool_bytes, 0);
        assert!(!board.offers("time", "now", start + Duration::from_secs(30)));
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn peers_are_told_local_reports_only_and_each_once() {
        let now = Instant::now();
        let mut board = StatusBoard::new(10, Duration::from_secs(30));
        board.put("time", status("e1", "ready"), true, now).unwrap();
        board.put("time", status("e2", "ready"), false, now).unwrap();
        assert_eq!(board.since(0, now).len(), 1);
        let seen = board.counter();
        assert_eq!(board.since(seen, now).len(), 0);
        board.put("time", status("e1", "failing"), true, now).unwrap();
        board.put("time", status("e1", "ready"), false, now).unwrap();
        assert_eq!(board.since(seen, now)[0].status.as_ref().unwrap().state, "failing");
    }
}
