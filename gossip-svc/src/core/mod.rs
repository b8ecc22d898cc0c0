//! The pure part: who is in the cluster, in what state, and which services a node speaks for.
//!
//! No socket, no clock, no task. Time comes in as `now`; the engine's findings come in as
//! [`Sighting`]s.

pub(crate) mod awake;
pub(crate) mod facts;
pub(crate) mod leases;
pub(crate) mod members;
pub(crate) mod phi;
mod record;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// What a node says about itself: keys only it may write.
pub(crate) type Facts = BTreeMap<String, String>;

/// One node as the gossip engine knows it now.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) node: String,
    pub(crate) generation: u64,
    pub(crate) addr: SocketAddr,
    /// Grows while the node lives.
    pub(crate) heartbeat: u64,
    pub(crate) facts: Arc<Facts>,
}

/// State of a member, as every part of the system names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// Heard of in time.
    Alive,
    /// Silent for longer than usual.
    Suspect,
    /// Silent for so long that it is given up.
    Dead,
    /// Said goodbye; final for its generation.
    Left,
}

impl State {
    /// Every state, for gauges.
    pub(crate) const ALL: [State; 4] = [State::Alive, State::Suspect, State::Dead, State::Left];

    /// Whether it makes sense to talk to it.
    pub(crate) fn is_reachable(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }

    /// The label value in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
        }
    }
}

/// A member in a [`View`].
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) node: String,
    pub(crate) generation: u64,
    pub(crate) state: State,
    pub(crate) addr: SocketAddr,
    pub(crate) phi: f64,
    pub(crate) facts: Arc<Facts>,
}

/// The membership as one node sees it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Ordered by name.
    pub(crate) members: Vec<Member>,
    /// The node that looks.
    pub(crate) own: String,
    /// Grows with every change of anything but phi.
    pub(crate) version: u64,
}

/// What happened to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A new node, a new generation, or one given up that came back.
    Joined,
    Suspected,
    Died,
    Left,
}

/// A change worth telling.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) what: Happening,
    pub(crate) member: Member,
}
