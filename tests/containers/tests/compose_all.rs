//! `compose/all.yaml`: five services, three nodes of each stateful one, two edges, NATS.

use anyhow::Result;
use containers::{Compose, eventually, python, swarm_image};
use std::time::Duration;

/// One container of every service, so that each role loses a node.
const KILLED: [&str; 5] = ["gossip-2", "registry-2", "session-2", "coordinator-2", "nats"];

fn start() -> Result<Compose> {
    let image = swarm_image();
    let free = [("SWARM_PORT_1", "0"), ("SWARM_PORT_2", "0"), ("SWARM_ADMIN_1", "0"), ("SWARM_ADMIN_2", "0")];
    let mut environment = vec![("SWARM_IMAGE", image.as_str())];
    environment.extend(free);
    let compose = Compose::up("all.yaml", &environment)?;
    compose.wait_healthy(Duration::from_secs(120))?;
    Ok(compose)
}

fn url(compose: &Compose, edge: &str) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}/mcp", compose.port(edge, 7700)?))
}

/// A session opened through one edge is used through the other, with calls to both backends.
fn use_both_edges(compose: &Compose) -> Result<()> {
    let (first, second) = (url(compose, "edge-1")?, url(compose, "edge-2")?);
    for mode in ["legacy", "2026-07-28"] {
        python("bin", "compose_client.py", &[&first, &second, mode])?;
        python("bin", "compose_client.py", &[&second, &first, mode])?;
    }
    Ok(())
}

#[test]
fn the_whole_system_serves_through_either_edge_and_loses_one_of_each() -> Result<()> {
    let compose = start()?;
    use_both_edges(&compose)?;

    for service in KILLED {
        compose.kill(service)?;
    }
    eventually("both edges serve without one of each", Duration::from_secs(20), || {
        use_both_edges(&compose)
    })?;

    for service in KILLED {
        compose.start(service)?;
    }
    compose.wait_healthy(Duration::from_secs(60))?;

    let kept = url(&compose, "edge-1")?;
    compose.kill("edge-2")?;
    eventually("the other edge serves alone", Duration::from_secs(20), || {
        python("bin", "compose_client.py", &[&kept, &kept, "legacy"])
    })?;
    Ok(())
}
