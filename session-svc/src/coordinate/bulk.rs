//! Touch and list: many sessions at once.

use super::{
    Coordinator,
    peers::{Owner, seems_alive},
};
use crate::error::Fault;
use futures::future::join_all;
use proto::session as wire;
use session_client::{SERVICE, SessionId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the owners of one session said to a touch.
#[derive(Default)]
struct Touched {
    alive: usize,
    unknown: usize,
    need: usize,
}

impl Coordinator {
    /// Extends lives at every owner that seems alive; answers the ids that a quorum does not know.
    pub(crate) async fn touch(&self, ids: Vec<SessionId>, within: Duration) -> Result<Vec<String>, Fault> {
        let within = within.min(self.config.replica_deadline);
        let mut by_owner: BTreeMap<String, (Owner, Vec<String>)> = BTreeMap::new();
        let mut touched: BTreeMap<String, Touched> = BTreeMap::new();
        for id in &ids {
            let plan = self.plan(id, within);
            touched.entry(id.to_string()).or_default().need = plan.quorum.need;
            for owner in plan.owners.into_iter().filter(seems_alive) {
                by_owner.entry(owner.name.clone()).or_insert((owner, Vec::new())).1.push(id.to_string());
            }
        }
        let calls = by_owner.into_values().map(|(owner, ids)| async move {
            let request = wire::TouchReplicaRequest { ids: ids.clone() };
            (ids, self.peers.clone().touch(owner, request, within).await)
        });
        for (ids, answer) in join_all(calls).await {
            let Ok(answer) = answer else { continue };
            let unknown: BTreeSet<String> = answer.unknown.into_iter().collect();
            for id in ids {
                let Some(touched) = touched.get_mut(&id) else { continue };
                if unknown.contains(&id) { touched.unknown += 1 } else { touched.alive += 1 }
            }
        }
        let missing = touched.values().find(|touched| touched.alive + touched.unknown < touched.need);
        if let Some(touched) = missing {
            return Err(Fault::Quorum { have: touched.alive + touched.unknown, need: touched.need });
        }
        Ok(touched.into_iter().filter(|(_, t)| t.unknown >= t.need).map(|(id, _)| id).collect())
    }

    /// A page in order of id, without values.
    pub(crate) async fn list(
        &self,
        after: &str,
        limit: usize,
        cluster: bool,
        within: Duration,
    ) -> Result<wire::ListResponse, Fault> {
        let within = within.min(self.config.replica_deadline);
        let mut instances = vec![self.owner(&self.me.name)];
        if cluster {
            let others = self.directory.of(SERVICE).into_iter().filter(|i| i.name != self.me.name);
            instances.extend(others.map(|instance| self.owner(&instance.name)).filter(seems_alive));
        }
        let request = wire::ListReplicaRequest { after_id: after.to_owned(), limit: limit as u32 };
        let calls =
            instances.into_iter().map(|owner| self.peers.clone().list(owner, request.clone(), within));
        let mut pages = Vec::new();
        for answer in join_all(calls).await {
            match answer {
                Ok(page) => pages.push(page.sessions),
                Err(error) => tracing::debug!(%error, "an instance is missing from a list"),
            }
        }
        Ok(page(pages, limit))
    }
}

/// Each instance gave its first `limit` sessions, so the first `limit` of all are among them.
fn page(pages: Vec<Vec<wire::Session>>, limit: usize) -> wire::ListResponse {
    let mut all: BTreeMap<String, wire::Session> = BTreeMap::new();
    let full = pages.iter().any(|page| page.len() >= limit);
    for session in pages.into_iter().flatten() {
        let counter = |session: &wire::Session| session.version.as_ref().map(|version| version.counter);
        match all.get(&session.id) {
            Some(held) if counter(held) >= counter(&session) => {}
            _ => {
                all.insert(session.id.clone(), session);
            }
        }
    }
    let more = full || all.len() > limit;
    let sessions: Vec<_> = all.into_values().take(limit).collect();
    let next = sessions.last().filter(|_| more).map(|session| session.id.clone());
    wire::ListResponse { sessions, next_page_token: next.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, counter: u64) -> wire::Session {
        let version = Some(wire::Version { counter, writer: String::new() });
        wire::Session { id: id.into(), version, ..wire::Session::default() }
    }

    #[test]
    fn pages_of_several_instances_make_one_without_repeats() {
        let pages = vec![vec![session("a", 1), session("c", 2)], vec![session("a", 2), session("b", 1)]];
        let merged = page(pages, 2);
        let ids: Vec<_> =
            merged.sessions.iter().map(|s| (s.id.as_str(), s.version.clone().unwrap().counter)).collect();
        assert_eq!(ids, [("a", 2), ("b", 1)]);
        assert_eq!(merged.next_page_token, "b");
        assert_eq!(page(vec![vec![session("a", 1)]], 2).next_page_token, "");
    }
}
