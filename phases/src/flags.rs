//! Every flag, as data.

use crate::Phase;
use serde::Serialize;

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FlagDef {
    /// Dotted name. A trailing `*` stands for any name (`kill.backend.*`).
    pub key: &'static str,
    /// The phase that brings it; `None` for what belongs to operation.
    pub phase: Option<Phase>,
    /// What it can be set to. The first one is safe: it needs nothing and changes nothing.
    pub variants: &'static [&'static str],
    /// For whom it can differ.
    pub scope: Scope,
    /// What must hold before it may be anything but safe.
    pub requires: &'static [Requirement],
    /// What it does, and what an operator can see of it.
    pub description: &'static str,
    /// What this build does with it.
    pub today: Today,
}

/// For whom a flag can differ. A mix is allowed only where it is coherent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "key")]
pub enum Scope {
    /// One value for all: a mix would be two clusters.
    Cluster,
    /// By percentage of a key's hash, and by tenant.
    Percent(&'static str),
    /// By tenant.
    Tenant,
    /// By queue.
    Queue,
}

/// `key=variant` of another flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// The other flag.
    pub key: &'static str,
    /// What it must be.
    pub variant: &'static str,
}

/// What this build does with a flag. Whoever gives a flag its effect makes it [`Today::Live`] here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "variant")]
pub enum Today {
    /// The flag decides; unset, it is this.
    Live(&'static str),
    /// Runs as if set to this, for everybody, and cannot be set.
    Fixed(&'static str),
    /// Not built yet: the same as its safe variant, and cannot be set.
    Absent,
}

/// A flag without types of this crate: key, variants, default, requirements; then for whom
/// (`cluster`, `tenant`, `percent` or `kill`), stage, description.
pub type Plain = (
    (&'static str, &'static [&'static str], &'static str, Vec<(&'static str, &'static str)>),
    (&'static str, &'static str, &'static str),
);

/// Every flag in its plain shape, for `ctx.flags.define(phases::plain())`.
pub fn plain() -> impl Iterator<Item = Plain> {
    FLAGS.iter().map(FlagDef::plain)
}

const SHADOWED: &[&str] = &["off", "shadow", "on"];
const SWITCH: &[&str] = &["off", "on"];
const GOSSIP: Requirement = Requirement { key: "cluster.gossip", variant: "on" };
const SESSIONS: Requirement = Requirement { key: "session.distributed", variant: "on" };
const RAFT: Requirement = Requirement { key: "coordinator.raft", variant: "on" };
/// A kill switch that something obeys, and that nobody has thrown.
const OBEYED: Today = Today::Live("off");

const fn kill(key: &'static str, today: Today, description: &'static str) -> FlagDef {
    FlagDef { key, phase: None, variants: SWITCH, scope: Scope::Cluster, requires: &[], description, today }
}

/// Every flag, by phase.
pub const FLAGS: &[FlagDef] = &[
    FlagDef {
        key: "registry.sharding",
        phase: Some(Phase::Sharding),
        variants: SHADOWED,
        scope: Scope::Percent("server name"),
        requires: &[],
        description: "16 shards instead of one map; shadow: both maps answer and are compared",
        today: Today::Live("on"),
    },
    FlagDef {
        key: "registry.cache",
        phase: Some(Phase::Sharding),
        variants: SWITCH,
        scope: Scope::Percent("tenant"),
        requires: &[],
        description: "lookups from the client's own copy; hit ratio and stale reads are counted",
        today: Today::Live("on"),
    },
    FlagDef {
        key: "cluster.gossip",
        phase: Some(Phase::Gossip),
        variants: SHADOWED,
        scope: Scope::Cluster,
        requires: &[],
        description: "membership by gossip instead of a static list; shadow: members and phi are shown, routing ignores them",
        today: Today::Fixed("on"),
    },
    FlagDef {
        key: "cluster.phi-detector",
        phase: Some(Phase::Gossip),
        variants: SHADOWED,
        scope: Scope::Cluster,
        requires: &[GOSSIP],
        description: "phi-accrual verdicts instead of a fixed timeout; shadow: both verdicts are compared",
        today: Today::Fixed("on"),
    },
    FlagDef {
        key: "session.distributed",
        phase: Some(Phase::Sessions),
        variants: SHADOWED,
        scope: Scope::Percent("session id"),
        requires: &[GOSSIP],
        description: "sessions on a ring with quorum writes instead of on one node; shadow: written to both, answered from the node",
        today: Today::Fixed("on"),
    },
    FlagDef {
        key: "session.tiering",
        phase: Some(Phase::Sessions),
        variants: SWITCH,
        scope: Scope::Tenant,
        requires: &[SESSIONS],
        description: "hot, warm and cold sessions by idle time",
        today: Today::Absent,
    },
    FlagDef {
        key: "coordinator.raft",
        phase: Some(Phase::Coordinator),
        variants: SHADOWED,
        scope: Scope::Cluster,
        requires: &[GOSSIP],
        description: "decisions by a Raft leader instead of a local scheduler; shadow: both decide and are compared",
        today: Today::Fixed("on"),
    },
    FlagDef {
        key: "scheduler.strategy",
        phase: Some(Phase::Coordinator),
        variants: &["least-connections", "weighted", "affinity"],
        scope: Scope::Queue,
        requires: &[RAFT],
        description: "how a queue chooses a worker; queue wait is shown by strategy",
        today: Today::Absent,
    },
    FlagDef {
        key: "orchestration.adaptive",
        phase: Some(Phase::Orchestration),
        variants: SHADOWED,
        scope: Scope::Percent("swarm"),
        requires: &[RAFT, SESSIONS],
        description: "moves agents and shards by cost; shadow: moves are proposed and scored, not done",
        today: Today::Absent,
    },
    FlagDef {
        key: "orchestration.claude-flow-tools",
        phase: Some(Phase::Orchestration),
        variants: SWITCH,
        scope: Scope::Tenant,
        requires: &[RAFT],
        description: "the tools of claude-flow (swarm_init, agent_spawn, task_create, ...) in tools/list",
        today: Today::Absent,
    },
    FlagDef {
        key: "mcp.modern-era",
        phase: None,
        variants: SWITCH,
        scope: Scope::Tenant,
        requires: &[],
        description: "server/discover is answered and requests without a session are served",
        today: Today::Live("on"),
    },
    kill("kill.transport.http", OBEYED, "refuses streamable HTTP with 503 and Retry-After"),
    kill("kill.transport.ws", Today::Absent, "refuses WebSocket"),
    kill("kill.transport.tcp", Today::Absent, "refuses TCP"),
    kill("kill.transport.sse", Today::Absent, "refuses HTTP+SSE"),
    kill("kill.transport.stdio", Today::Absent, "refuses stdio"),
    kill("kill.backend.*", OBEYED, "cuts one backend off, by name"),
    kill("kill.tool-calls", OBEYED, "refuses every tools/call"),
    kill("kill.rebalance", Today::Absent, "stops moving shards, vnodes and tasks"),
];

/// The definition of a flag. `kill.backend.time` finds `kill.backend.*`.
pub fn flag(key: &str) -> Option<&'static FlagDef> {
    FLAGS.iter().find(|flag| flag.covers(key))
}

impl FlagDef {
    /// The variant that needs nothing and changes nothing.
    pub fn safe(&self) -> &'static str {
        self.variants.first().copied().unwrap_or("off")
    }

    /// What this build runs when nobody sets the flag.
    pub fn runs(&self) -> &'static str {
        match self.today {
            Today::Live(variant) | Today::Fixed(variant) => variant,
            Today::Absent => self.safe(),
        }
    }

    /// `live`, `fixed` or `absent`.
    pub fn stage(&self) -> &'static str {
        match self.today {
            Today::Live(_) => "live",
            Today::Fixed(_) => "fixed",
            Today::Absent => "absent",
        }
    }

    /// The flag in the plain shape that an evaluator takes (`kit::flags::Plain`).
    pub fn plain(&self) -> Plain {
        let requires = self.requires.iter().map(|needed| (needed.key, needed.variant)).collect();
        let scope = match self.scope {
            Scope::Cluster if self.key.starts_with("kill.") => "kill",
            Scope::Cluster => "cluster",
            Scope::Percent(_) => "percent",
            Scope::Tenant | Scope::Queue => "tenant",
        };
        ((self.key, self.variants, self.runs(), requires), (scope, self.stage(), self.description))
    }

    /// The requirements as OFREP metadata wants them: one string, `a=on,b=on`.
    pub fn requires_text(&self) -> String {
        let pairs: Vec<_> = self.requires.iter().map(|r| format!("{}={}", r.key, r.variant)).collect();
        pairs.join(",")
    }

    fn covers(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(prefix) => key.strip_prefix(prefix).is_some_and(|name| !name.is_empty()),
            None => self.key == key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_unique_and_variants_legal() {
        let keys: BTreeSet<_> = FLAGS.iter().map(|flag| flag.key).collect();
        assert_eq!(keys.len(), FLAGS.len());
        for flag in FLAGS {
            assert!(flag.variants.len() >= 2, "{}", flag.key);
            assert!(flag.variants.contains(&flag.runs()), "{}", flag.key);
            assert!(!flag.description.is_empty() && !flag.description.ends_with('.'), "{}", flag.key);
        }
    }

    #[test]
    fn a_requirement_is_a_variant_of_a_flag_of_the_same_or_an_earlier_phase() {
        for child in FLAGS {
            for requirement in child.requires {
                let parent = flag(requirement.key).expect(requirement.key);
                assert!(parent.variants.contains(&requirement.variant), "{}", child.key);
                assert_ne!(requirement.variant, parent.safe(), "{} requires nothing", child.key);
                assert!(parent.phase.is_some() && parent.phase <= child.phase, "{}", child.key);
            }
        }
    }

    #[test]
    fn a_kill_switch_covers_names_but_not_its_own_stem() {
        assert_eq!(flag("kill.backend.time").map(|flag| flag.key), Some("kill.backend.*"));
        assert_eq!(flag("kill.backend."), None);
        assert_eq!(flag("kill.everything"), None);
    }

    #[test]
    fn the_readme_tells_the_stage_of_every_flag() {
        let readme = include_str!("../README.md");
        for flag in FLAGS {
            let row = format!("| `{}`", flag.stage());
            let row = readme.lines().find(|line| line.starts_with(&row)).expect("a row for every stage");
            assert!(row.contains(&format!("`{}`", flag.key)), "README.md: {} is {}", flag.key, flag.stage());
        }
    }

    #[test]
    fn requirements_read_as_one_string() {
        let adaptive = flag("orchestration.adaptive").expect("a flag");
        assert_eq!(adaptive.requires_text(), "coordinator.raft=on,session.distributed=on");
    }
}
