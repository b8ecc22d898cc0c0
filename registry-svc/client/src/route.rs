//! The shard: which instance is asked for a name, and how.

use crate::{
    Error, RegistryClient,
    client::{Stub, no_instance},
};
use arc_swap::ArcSwap;
use kit::{
    directory::Instance,
    rpc::{CallPolicy, with_deadline},
};
use proto::{
    ids::ShardId,
    registry::{
        LookupRequest, LookupResponse, Registration, RouteRequest, RouteResponse,
        registry_service_client::RegistryServiceClient,
    },
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tonic::Status;

const DEADLINE: Duration = Duration::from_secs(1);

/// What registry-svc answers to a client in its own process, as [`RegistryClient::lookup`] over
/// gRPC: no socket, no copy of bytes. Reads only; the answers and the errors are those of the RPC.
pub trait Direct: Send + Sync {
    /// The answer to a Lookup.
    ///
    /// # Errors
    /// Those of the RPC.
    fn answer(&self, request: LookupRequest) -> Result<LookupResponse, Status>;
}

/// Where a node's registry-svc, if it has one, leaves its [`Direct`] for the node's clients
/// (`ctx.shared.get(Door::default)`).
#[derive(Clone, Default)]
pub struct Door(Arc<OnceLock<Arc<dyn Direct>>>);

impl Door {
    /// Opens it, once.
    pub fn open(&self, direct: Arc<dyn Direct>) {
        // A node runs one registry-svc; a second one is asked over gRPC.
        let _ = self.0.set(direct);
    }

    fn get(&self) -> Option<&dyn Direct> {
        self.0.get().map(|direct| &**direct)
    }
}

/// The newest shard map that any instance has told.
#[derive(Debug, Default)]
pub(crate) struct Routes(ArcSwap<Route>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Route {
    // 0 = none is known.
    epoch: u64,
    shards: u16,
    owners: Vec<String>,
}

impl Routes {
    /// Takes in an answer that is newer and makes sense.
    pub(crate) fn learn(&self, answer: RouteResponse) {
        let RouteResponse { epoch, shards, owners, .. } = answer;
        let shards = u16::try_from(shards).unwrap_or_default();
        let fits = shards.is_power_of_two() && (owners.is_empty() || owners.len() == usize::from(shards));
        if !fits {
            return;
        }
        let answer = Arc::new(Route { epoch, shards, owners });
        self.0.rcu(|known| if known.epoch < epoch { answer.clone() } else { known.clone() });
    }

    fn epoch(&self) -> u64 {
        self.0.load().epoch
    }

    /// `None` when every instance answers.
    fn owner_of(&self, name: &str) -> Option<String> {
        let route = self.0.load();
        if route.owners.is_empty() {
            return None;
        }
        route.owners.get(usize::from(ShardId::of(name, route.shards).0)).cloned()
    }
}

impl RegistryClient {
    /// One registration with what edges say of it, from the shard that owns the name. When the
    /// shard map was wrong it is read again, and the owner is asked once more.
    pub async fn lookup(&self, name: &str) -> Result<Registration, Error> {
        match self.lookup_once(name).await {
            Err(Error::NotOwner { owner, .. }) => {
                self.ask_routes(self.instance(&owner).ok()).await?;
                self.lookup_once(name).await
            }
            settled => settled,
        }
    }

    async fn lookup_once(&self, name: &str) -> Result<Registration, Error> {
        let request = LookupRequest { name: name.to_owned(), route_epoch: self.routes().epoch() };
        let owner = self.routes().owner_of(name);
        let is_here = owner.as_deref().is_none_or(|owner| self.is_local(owner));
        let answer = match self.door().get().filter(|_| is_here) {
            Some(direct) => direct.answer(request)?,
            None => self.lookup_over_grpc(owner, request).await?,
        };
        answer.registration.ok_or_else(|| Error::Failed("an answer without a registration".into()))
    }

    async fn lookup_over_grpc(
        &self,
        owner: Option<String>,
        request: LookupRequest,
    ) -> Result<LookupResponse, Error> {
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.lookup(request).await }
        };
        match owner {
            Some(owner) => self.at(&self.instance(&owner)?, call).await,
            None => self.anywhere(call).await,
        }
    }

    fn instance(&self, name: &str) -> Result<Instance, Error> {
        let known = self.directory().get(crate::SERVICE, name);
        known.ok_or_else(|| Error::Unavailable(format!("the owner {name:?} is not known")))
    }

    /// Reads the shard map. Without it lookups go to any instance, and a map that is out of date
    /// is found out by the first wrong route.
    ///
    /// # Errors
    /// When no instance answers.
    pub async fn refresh_routes(&self) -> Result<(), Error> {
        self.ask_routes(None).await
    }

    /// Asks the owner that was named first, then the others until one knows a newer map.
    async fn ask_routes(&self, named: Option<Instance>) -> Result<(), Error> {
        let known = self.routes().epoch();
        let mut outcome = Err(no_instance());
        for instance in named.into_iter().chain(self.candidates()) {
            match self.route_at(&instance).await {
                Ok(_) if self.routes().epoch() > known => return Ok(()),
                Ok(_) => outcome = Ok(()),
                Err(error) => outcome = outcome.or(Err(error)),
            }
        }
        outcome
    }

    /// Asks one instance for its shard map and its newest revision, and learns from it.
    pub(crate) async fn route_at(&self, instance: &Instance) -> Result<RouteResponse, Error> {
        let policy = CallPolicy::once(DEADLINE);
        let answer = kit::rpc::call(&policy, self.channels(), &instance.addr, |channel, left| async move {
            RegistryServiceClient::new(channel).route(with_deadline(RouteRequest {}, left)).await
        });
        let answer = answer.await?;
        self.routes().learn(answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(epoch: u64, shards: u32, owners: &[&str]) -> RouteResponse {
        let owners = owners.iter().map(|owner| (*owner).to_owned()).collect();
        RouteResponse { epoch, shards, owners, revision: 0 }
    }

    #[test]
    fn only_a_newer_map_that_makes_sense_is_learnt() {
        let routes = Routes::default();
        assert_eq!((routes.epoch(), routes.owner_of("a")), (0, None));
        routes.learn(answer(2, 2, &["n1", "n2"]));
        routes.learn(answer(1, 2, &["n3", "n3"]));
        routes.learn(answer(3, 2, &["n3"]));
        routes.learn(answer(4, 3, &["n3", "n3", "n3"]));
        routes.learn(answer(5, 1 << 20, &[]));
        let owner = ["n1", "n2"][usize::from(ShardId::of("a", 2).0)];
        assert_eq!((routes.epoch(), routes.owner_of("a").as_deref()), (2, Some(owner)));
        routes.learn(answer(6, 16, &[]));
        assert_eq!((routes.epoch(), routes.owner_of("a")), (6, None), "everybody answers");
    }
}
