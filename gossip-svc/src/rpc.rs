//! Handlers: decode, ask, encode.

use crate::{
    core::{
        Member, State, View, facts,
        facts::{ServiceFact, ServiceKey},
    },
    driver::{Publication, Request},
};
use futures::{Stream, StreamExt as _};
use proto::{
    error::Code,
    gossip::{
        self as wire, FactsRequest, FactsResponse, LeaveRequest, LeaveResponse, MembersRequest,
        MembersResponse, PublishRequest, PublishResponse, WatchRequest, WatchResponse,
        gossip_service_server::GossipService,
    },
    ids::check_name,
};
use std::{net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request as Call, Response, Status};

/// The gRPC side: reads views, sends requests to the loop.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) requests: mpsc::Sender<Request>,
    /// Stands in for an unspecified host in a published address.
    pub(crate) own_ip: IpAddr,
}

impl Rpc {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Code::Unavailable.status("gossip is stopping", &[]);
        self.requests.send(make(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

#[tonic::async_trait]
impl GossipService for Rpc {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn members(&self, _call: Call<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let view = self.views.borrow().clone();
        let members = view.members.iter().map(encode_member).collect();
        Ok(Response::new(MembersResponse { members, self_: view.own.clone(), view_version: view.version }))
    }

    // A watcher that reads slowly skips views; the last one always arrives.
    async fn watch(&self, _call: Call<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let views = WatchStream::new(self.views.clone());
        Ok(Response::new(Box::pin(views.map(|view| Ok(encode_watch(&view))))))
    }

    async fn facts(&self, call: Call<FactsRequest>) -> Result<Response<FactsResponse>, Status> {
        let node = call.into_inner().node;
        let view = self.views.borrow().clone();
        let member = view.members.iter().find(|member| member.node == node);
        let member = member.ok_or_else(|| Code::NotFound.status(format!("no member {node:?}"), &[]))?;
        Ok(Response::new(FactsResponse { facts: (*member.facts).clone() }))
    }

    async fn publish(&self, call: Call<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let request = call.into_inner();
        let ttl_ms = request.ttl_ms;
        let publication = decode_publication(request, self.own_ip)?;
        self.ask(|answer| Request::Publish { publication, answer }).await??;
        let node = self.views.borrow().own.clone();
        Ok(Response::new(PublishResponse { node, ttl_ms }))
    }

    async fn leave(&self, _call: Call<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        self.ask(|answer| Request::Leave { answer }).await?;
        Ok(Response::new(LeaveResponse {}))
    }
}

fn decode_publication(request: PublishRequest, own_ip: IpAddr) -> Result<Publication, Status> {
    let services = request.services.into_iter().map(|service| decode_service(service, own_ip));
    Ok(Publication {
        services: services.collect::<Result<_, _>>()?,
        withdrawn: request.withdrawn.iter().map(decode_key).collect::<Result<_, _>>()?,
        ttl: Duration::from_millis(request.ttl_ms),
    })
}

fn decode_key(service: &wire::ServiceInstance) -> Result<ServiceKey, Status> {
    for name in [&service.service, &service.instance] {
        check_name(name).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(ServiceKey { service: service.service.clone(), instance: service.instance.clone() })
}

fn decode_service(
    service: wire::ServiceInstance,
    own_ip: IpAddr,
) -> Result<(ServiceKey, ServiceFact), Status> {
    let key = decode_key(&service)?;
    let addr = reachable(&service.grpc_addr, own_ip)
        .ok_or_else(|| invalid(format!("grpc_addr {:?} is not host:port", service.grpc_addr)))?;
    let wire::ServiceInstance { generation, zone, meta, down, .. } = service;
    Ok((key, ServiceFact { addr, generation, zone, meta, down }))
}

/// `0.0.0.0:7610` means "on every interface": to others that is the address of this node.
pub(crate) fn reachable(addr: &str, own_ip: IpAddr) -> Option<String> {
    if let Ok(parsed) = addr.parse::<SocketAddr>() {
        let ip = if parsed.ip().is_unspecified() { own_ip } else { parsed.ip() };
        return Some(SocketAddr::new(ip, parsed.port()).to_string());
    }
    let (host, port) = addr.rsplit_once(':')?;
    let valid = !host.is_empty() && port.parse::<u16>().is_ok();
    valid.then(|| addr.to_owned())
}

fn invalid(message: String) -> Status {
    Code::InvalidArgument.status(message, &[])
}

fn encode_watch(view: &View) -> WatchResponse {
    let members = view.members.iter().map(encode_member).collect();
    WatchResponse { members, self_: view.own.clone(), view_version: view.version }
}

/// A member as it travels.
pub(crate) fn encode_member(member: &Member) -> wire::Member {
    let fact = |key| member.facts.get(key).cloned().unwrap_or_default();
    wire::Member {
        node: member.node.clone(),
        generation: member.generation,
        state: encode_state(member.state).into(),
        gossip_addr: member.addr.to_string(),
        zone: fact(facts::ZONE),
        phi: member.phi,
        version: fact(facts::VERSION),
        services: facts::services(&member.facts).map(encode_service).collect(),
    }
}

fn encode_service((key, fact): (ServiceKey, ServiceFact)) -> wire::ServiceInstance {
    let ServiceKey { service, instance } = key;
    let ServiceFact { addr: grpc_addr, generation, zone, meta, down } = fact;
    wire::ServiceInstance { service, instance, grpc_addr, generation, zone, meta, down }
}

fn encode_state(state: State) -> wire::MemberState {
    match state {
        State::Alive => wire::MemberState::Alive,
        State::Suspect => wire::MemberState::Suspect,
        State::Dead => wire::MemberState::Dead,
        State::Left => wire::MemberState::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_host_becomes_this_nodes() {
        let own = IpAddr::from([10, 0, 0, 7]);
        assert_eq!(reachable("0.0.0.0:7610", own).as_deref(), Some("10.0.0.7:7610"));
        assert_eq!(reachable("127.0.0.1:7610", own).as_deref(), Some("127.0.0.1:7610"));
        assert_eq!(reachable("session-1.local:7610", own).as_deref(), Some("session-1.local:7610"));
        assert_eq!(reachable("7610", own), None);
        assert_eq!(reachable("host:port", own), None);
    }

    #[test]
    fn a_publication_with_a_bad_name_is_refused() {
        let bad =
            wire::ServiceInstance { service: "a/b".into(), instance: "n1".into(), ..Default::default() };
        let request = PublishRequest { services: vec![bad], ttl_ms: 3000, withdrawn: vec![] };
        let status = decode_publication(request, IpAddr::from([127, 0, 0, 1])).unwrap_err();
        assert_eq!(Code::of(&status), Code::InvalidArgument);
    }
}
