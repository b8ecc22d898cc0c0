//! What it takes to bring the registry to what a file says. Pure: `solve(wanted, standing)`.
//!
//! Wanted properties:
//! * nothing of another owner is changed; the same server under the same name is fine, whoever
//!   registered it;
//! * only what was applied before, by the same owner, is ever removed, and only when asked for;
//! * a name that the file speaks of is not removed, even when its entry cannot be used;
//! * done once, the same file gives a plan in which everything is the same.

use crate::{
    api::{Action, Change, Mode, Step},
    import::{self, Entry},
    secret::Shown,
};
use proto::registry::{BackendSpec, Kind, Registration, backend_spec::Transport, registration::Spec};
use std::collections::{BTreeMap, BTreeSet};

/// Label that says how a registration came.
pub const SOURCE: &str = "source";

/// What a file says, and how it is meant.
pub struct Wanted<'a> {
    /// Backends, in the order of the file.
    pub entries: &'a [Entry],
    /// Names that the file speaks of but which cannot be used.
    pub mentioned: &'a BTreeSet<String>,
    /// Who registers.
    pub owner: &'a str,
    /// Import adds and changes; apply also takes over and may remove.
    pub mode: Mode,
    /// Remove what was applied before and is not in the file any more.
    pub prune: bool,
    /// Whether values of secrets are shown.
    pub shown: Shown,
}

/// One thing to do, and with what.
pub struct Task {
    /// As it is told.
    pub step: Step,
    /// What is to be registered, for [`Action::Add`] and [`Action::Change`].
    pub spec: Option<BackendSpec>,
}

/// The plan: entries in the order of the file, then removals in name order.
pub fn solve(wanted: &Wanted<'_>, standing: &[Registration]) -> Vec<Task> {
    let by_name: BTreeMap<&str, &Registration> = standing.iter().map(|r| (r.name.as_str(), r)).collect();
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    for entry in wanted.entries {
        let first = seen.insert(entry.name.as_str());
        let standing = by_name.get(entry.name.as_str()).copied();
        tasks.push(match import::check(entry) {
            Err(reason) => refused(&entry.name, reason),
            Ok(()) if !first => refused(&entry.name, "the name is used twice".to_owned()),
            Ok(()) => wanted.task(entry, standing),
        });
    }
    if wanted.prune && wanted.mode == Mode::Apply {
        let gone = standing.iter().filter(|r| wanted.owns(r) && !seen.contains(r.name.as_str()));
        let gone = gone.filter(|r| !wanted.mentioned.contains(&r.name));
        tasks.extend(gone.map(|r| task(Step::new(&r.name, Action::Remove), None)));
    }
    tasks
}

fn task(step: Step, spec: Option<BackendSpec>) -> Task {
    Task { step, spec }
}

fn refused(name: &str, reason: String) -> Task {
    task(Step { reason, ..Step::new(name, Action::Refused) }, None)
}

impl Wanted<'_> {
    /// Applied by this owner before.
    fn owns(&self, standing: &Registration) -> bool {
        standing.owner == self.owner && self.labelled(standing)
    }

    fn labelled(&self, standing: &Registration) -> bool {
        standing.labels.get(SOURCE).is_some_and(|source| source == self.mode.source())
    }

    fn task(&self, entry: &Entry, standing: Option<&Registration>) -> Task {
        let name = &entry.name;
        let Some(standing) = standing else {
            let step = Step { target: self.shown.target(&entry.spec), ..Step::new(name, Action::Add) };
            return task(step, Some(entry.spec.clone()));
        };
        let Some(Spec::Backend(before)) = &standing.spec else {
            return refused(name, format!("{} has registered something else under it", standing.owner));
        };
        if standing.kind() != Kind::Backend {
            return refused(name, format!("{} has registered something else under it", standing.owner));
        }
        let after = kept(&entry.spec, before);
        let mut changes = differences(before, &after, self.shown);
        let others = standing.owner != self.owner;
        if others && !changes.is_empty() {
            let words = format!("{} has registered another server under this name", standing.owner);
            return refused(name, words);
        }
        if self.mode == Mode::Apply && !others && !self.labelled(standing) {
            let from = standing.labels.get(SOURCE).cloned();
            changes.push(Change { field: SOURCE.to_owned(), from, to: Some(self.mode.source().to_owned()) });
        }
        if changes.is_empty() {
            let reason = if others { format!("registered by {}", standing.owner) } else { String::new() };
            return task(Step { reason, ..Step::new(name, Action::Same) }, None);
        }
        task(Step { changes, ..Step::new(name, Action::Change) }, Some(after))
    }
}

/// What files of other programs have no word for stays as it stands.
fn kept(wanted: &BackendSpec, standing: &BackendSpec) -> BackendSpec {
    let mut spec = wanted.clone();
    if spec.strategy.is_empty() {
        spec.strategy.clone_from(&standing.strategy);
    }
    if spec.call_timeout_ms == 0 {
        spec.call_timeout_ms = standing.call_timeout_ms;
    }
    if spec.zone.is_empty() {
        spec.zone.clone_from(&standing.zone);
    }
    if spec.weight == 0 {
        spec.weight = standing.weight;
    }
    spec
}

/// Field by field; a backend that changes its transport is another one as a whole.
fn differences(before: &BackendSpec, after: &BackendSpec, shown: Shown) -> Vec<Change> {
    let mut changes = Changes { list: Vec::new(), shown };
    match (&before.transport, &after.transport) {
        (Some(Transport::Stdio(before)), Some(Transport::Stdio(after))) => {
            changes.text("command", &before.command, &after.command);
            changes.text("args", &shown.line(&before.args), &shown.line(&after.args));
            if before.args != after.args && changes.list.iter().all(|change| change.field != "args") {
                changes.secret("args");
            }
            changes.map("env", &before.env, &after.env);
            changes.text("cwd", &before.cwd, &after.cwd);
        }
        (Some(Transport::Http(before)), Some(Transport::Http(after))) => {
            changes.text("url", &before.url, &after.url);
            changes.map("headers", &before.headers, &after.headers);
        }
        (from, to) if from == to => {}
        _ => changes.text("transport", &shown.target(before), &shown.target(after)),
    }
    changes.text("strategy", &before.strategy, &after.strategy);
    changes.text("call_timeout_ms", &number(before.call_timeout_ms), &number(after.call_timeout_ms));
    changes.text("zone", &before.zone, &after.zone);
    changes.text("weight", &number(before.weight), &number(after.weight));
    changes.list
}

/// 0 is "as the edge has it".
fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

struct Changes {
    list: Vec<Change>,
    shown: Shown,
}

impl Changes {
    fn text(&mut self, field: &str, from: &str, to: &str) {
        if from != to {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            self.list.push(Change { field: field.to_owned(), from: some(from), to: some(to) });
        }
    }

    /// Differs only in what is not shown.
    fn secret(&mut self, field: &str) {
        let mask = || Some(crate::secret::MASK.to_owned());
        self.list.push(Change { field: field.to_owned(), from: mask(), to: mask() });
    }

    fn map(&mut self, field: &str, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) {
        let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        for key in keys.into_iter().filter(|key| from.get(*key) != to.get(*key)) {
            let value = |map: &BTreeMap<String, String>| map.get(key).map(|value| self.shown.value(value));
            let (from, to) = (value(from), value(to));
            self.list.push(Change { field: format!("{field}.{key}"), from, to });
        }
    }
}

#[cfg(test)]
mod tests;
