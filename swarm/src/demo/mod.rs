//! `swarm demo`: three nodes, each a process of its own, behind a round-robin load balancer; a
//! real client does the main job through it while the node that serves it is killed.
//!
//! The nodes are children that die with the demo, however it ends; their data lies in a temporary
//! directory that goes with it (or, after a SIGKILL, with the next demo).

mod balancer;
mod cluster;
mod control;
mod folder;
mod node;
mod servers;
mod steps;

use crate::{
    cli::{DemoArgs, DemoCommand},
    error::{CliError, Failure},
    output::to_stdout,
    signals,
};
use balancer::Balancer;
use cluster::Cluster;
use folder::Folder;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Runs the demo, or controls one that runs.
pub(crate) async fn run(args: &DemoArgs) -> Result<(), CliError> {
    match &args.command {
        Some(DemoCommand::Kill { node }) => control::ask("kill", node).await,
        Some(DemoCommand::Start { node }) => control::ask("start", node).await,
        None => show(args).await,
    }
}

async fn show(args: &DemoArgs) -> Result<(), CliError> {
    let mcp = listen(args.mcp, "mcp").await?;
    let admin = listen(args.admin, "admin").await?;
    let front = Front { mcp: bound(&mcp)?, admin: bound(&admin)? };
    let folder = Folder::create()?;
    let balancer = Balancer::default();
    let cluster = Cluster::new(&folder, balancer.clone(), args.import.as_deref()).await?;
    tokio::spawn(balancer.clone().run(mcp));
    let token = control::serve(admin, &folder, front, cluster.clone())?;
    let result = tokio::select! {
        result = play(args, front, &cluster, &balancer, &token) => result,
        () = signals::terminate() => Ok(()),
    };
    cluster.stop().await;
    drop(folder);
    result
}

async fn play(
    args: &DemoArgs,
    front: Front,
    cluster: &Cluster,
    balancer: &Balancer,
    token: &str,
) -> Result<(), CliError> {
    let killed = steps::run(front, cluster, balancer).await?;
    if args.once {
        return Ok(());
    }
    to_stdout(&front.invitation(token, cluster, &killed));
    std::future::pending().await
}

/// What the demo listens on.
#[derive(Debug, Clone, Copy)]
struct Front {
    mcp: SocketAddr,
    admin: SocketAddr,
}

impl Front {
    fn mcp_url(&self) -> String {
        format!("http://{}/mcp", self.mcp)
    }

    fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    fn invitation(&self, token: &str, cluster: &Cluster, killed: &str) -> String {
        let next = if killed == "n3" { "n2" } else { "n3" };
        let (mcp, admin) = (self.mcp_url(), self.admin_url());
        let try_call = cluster.servers().call_line();
        format!(
            "  MCP       {mcp}        Console   {admin}/?token={token}   (temporary, nothing is saved)\n  \
             Try       {try_call}\n            \
             swarm demo kill {next}        # swarm demo start {killed}\n            \
             claude mcp add --transport http swarm {mcp}"
        )
    }
}

async fn listen(addr: SocketAddr, option: &str) -> Result<TcpListener, CliError> {
    TcpListener::bind(addr).await.map_err(|error| {
        CliError::new(Failure::Failed, format!("cannot listen on {addr}"))
            .cause(error)
            .hint(format!("something runs there; give the demo another --{option} (port 0 is a free one)"))
    })
}

fn bound(listener: &TcpListener) -> Result<SocketAddr, CliError> {
    listener.local_addr().map_err(|error| CliError::from(anyhow::Error::from(error)))
}
