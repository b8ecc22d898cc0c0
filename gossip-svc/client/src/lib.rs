//! What other services need of gossip: a [`Directory`](kit::directory::Directory) that follows the
//! membership, and a lease for what they announce.
//!
//! ```ignore
//! let members = GossipClient::connect(ctx.channels.clone(), endpoints).spawn(&ctx, writer);
//! ```
//!
//! The first endpoint is the node's own gossip-svc; the others stand in while it is away. When
//! none answers, the last known view stays in force and says so ([`View::stale_since`]).

#![warn(missing_docs)]

mod calls;
mod feed;
mod publisher;
mod view;

pub use calls::GossipClient;
pub use view::{Member, MemberState, Members, View, instances};

use kit::{config::NodeConfig, directory::DirectoryWriter, host::Context};
use std::time::Duration;

/// Lease under which services are published.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often the lease is renewed.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// The name under which a process that hosts gossip-svc itself serves it.
const SERVICE: &str = "swarm.gossip.v1.GossipService";

/// Feeds the directory as the configuration says, until the node stops:
/// * from `node.members`, a list that never changes, beside the node's own announcements;
/// * from `node.gossip_endpoints`;
/// * without any, from the gossip-svc in this process (it must be started before this call);
/// * without that either, from the node's own announcements: it is alone.
pub fn follow(
    config: &NodeConfig,
    ctx: &Context,
    writer: DirectoryWriter,
) -> impl Future<Output = ()> + Send + use<> {
    let mut endpoints = config.gossip_endpoints.clone();
    let listed: Vec<_> = config.members.iter().map(|member| member.instance(&config.zone)).collect();
    if listed.is_empty() && endpoints.is_empty() && ctx.rpc.names().contains(&SERVICE) {
        endpoints.push(ctx.grpc_addr.to_string());
    }
    let shutdown = ctx.shutdown.clone();
    let alone = if endpoints.is_empty() {
        Some(writer.follow_beside(listed, ctx.announce.clone()))
    } else {
        GossipClient::connect(ctx.channels.clone(), endpoints).spawn(ctx, writer);
        None
    };
    async move {
        match alone {
            Some(alone) => tokio::select! { () = alone => {}, () = shutdown.wait() => {} },
            None => shutdown.wait().await,
        }
    }
}
