//! What is known of one other node, and the verdict on it.

use super::{Facts, Happening, Member, Sighting, State, facts, members::Settings, phi::Phi};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// One node in its highest generation. Times are [`super::awake::Awake`] times.
#[derive(Debug)]
pub(crate) struct Record {
    generation: u64,
    addr: SocketAddr,
    facts: Arc<Facts>,
    heartbeat: u64,
    detector: Phi,
    /// The heartbeat moved in this generation: this is no echo.
    confirmed: bool,
    /// This generation was announced as joined.
    welcomed: bool,
    /// Forgotten before in this generation: listed again only if it lives.
    ghost: bool,
    /// As listed; `None` = not listed yet.
    state: Option<State>,
    /// Since when it is in this state.
    since: Duration,
}

/// What a look at a record brought.
pub(crate) struct Judgement {
    /// The listing changed.
    pub(crate) changed: bool,
    /// What is worth telling the others.
    pub(crate) what: Option<Happening>,
}

impl Record {
    /// A node seen for the first time; `ghost` if it was forgotten in this generation.
    pub(crate) fn new(settings: &Settings, awake: Duration, sighting: Sighting, ghost: bool) -> Self {
        Self {
            generation: sighting.generation,
            addr: sighting.addr,
            facts: sighting.facts,
            heartbeat: sighting.heartbeat,
            detector: Phi::new(settings.interval, awake),
            confirmed: false,
            welcomed: false,
            ghost,
            state: None,
            since: awake,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.state
    }

    /// As it is listed, if it is.
    pub(crate) fn member(&self, node: &str, awake: Duration) -> Option<Member> {
        Some(Member {
            node: node.to_owned(),
            generation: self.generation,
            state: self.state?,
            addr: self.addr,
            phi: self.detector.phi(awake),
            facts: self.facts.clone(),
        })
    }

    /// Takes a sighting of the same node; answers whether the listing changed by it.
    pub(crate) fn take(&mut self, settings: &Settings, awake: Duration, sighting: Sighting) -> bool {
        if sighting.generation < self.generation {
            return false;
        }
        if sighting.generation > self.generation {
            self.renew(settings, awake, sighting);
            return true;
        }
        if sighting.heartbeat > self.heartbeat {
            self.heartbeat = sighting.heartbeat;
            self.confirmed = true;
            self.ghost = false;
            self.detector.heard(awake);
        }
        let news = *sighting.facts != *self.facts;
        self.facts = sighting.facts;
        news
    }

    /// A restart. The node keeps its place in the list while the new generation is unproven, so
    /// that a quick restart moves no ring; but what the old generation left is not the new one's.
    fn renew(&mut self, settings: &Settings, awake: Duration, sighting: Sighting) {
        let state = self.state.filter(|state| *state != State::Left);
        *self = Self { state, ..Self::new(settings, awake, sighting, false) };
    }

    /// Brings the state up to date.
    pub(crate) fn judge(&mut self, settings: &Settings, awake: Duration) -> Judgement {
        let (before, after) = (self.state, self.verdict(settings, awake));
        let welcome = !self.welcomed && self.confirmed && after == Some(State::Alive);
        let returned = before == Some(State::Dead) && after.is_some_and(State::is_reachable);
        self.welcomed |= welcome;
        if before != after {
            self.state = after;
            self.since = awake;
        }
        let what = if welcome || returned { Some(Happening::Joined) } else { happening(before, after) };
        Judgement { changed: before != after, what }
    }

    /// Whether it was listed as gone, or hidden, for long enough.
    pub(crate) fn is_over(&self, settings: &Settings, awake: Duration) -> bool {
        let age = awake.saturating_sub(self.since);
        match self.state {
            Some(State::Left) => age >= settings.forget_left,
            Some(State::Dead) => age >= settings.forget_dead,
            Some(State::Alive | State::Suspect) => false,
            None => self.ghost && self.detector.phi(awake) >= settings.phi,
        }
    }

    fn verdict(&self, settings: &Settings, awake: Duration) -> Option<State> {
        if self.facts.contains_key(facts::LEFT) {
            return Some(State::Left);
        }
        let phi = self.detector.phi(awake);
        if phi >= settings.phi {
            return (!self.ghost).then_some(State::Dead);
        }
        if !self.confirmed {
            return self.state;
        }
        Some(if phi >= settings.phi_suspect { State::Suspect } else { State::Alive })
    }
}

/// A node that was never listed before is no news when it is already gone.
fn happening(before: Option<State>, after: Option<State>) -> Option<Happening> {
    if before.is_none() || before == after {
        return None;
    }
    match after? {
        State::Alive => None,
        State::Suspect => Some(Happening::Suspected),
        State::Dead => Some(Happening::Died),
        State::Left => Some(Happening::Left),
    }
}
