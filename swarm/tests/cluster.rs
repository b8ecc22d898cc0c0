//! Three processes are a cluster, and stay one when one of them is killed.

mod common;

use common::{Node, eventually};
use std::net::UdpSocket;

/// Gossip addresses must be known before the nodes are ready.
fn free_udp_addrs() -> [String; 3] {
    let sockets = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    sockets.map(|socket| socket.local_addr().expect("an address").to_string())
}

#[test]
fn three_nodes_are_a_cluster_that_survives_a_sigkill() {
    let folder = tempfile::tempdir().expect("a folder");
    let gossip = free_udp_addrs();
    let join = gossip.join(",");
    let starting: Vec<_> = gossip
        .iter()
        .enumerate()
        .map(|(index, addr)| {
            let name = format!("n{}", index + 1);
            let args = ["--gossip", addr, "--join", &join, "--expect", "3"];
            Node::spawn(&name, &folder.path().join(&name), &args)
        })
        .collect();
    let mut nodes: Vec<Node> = starting.into_iter().map(|node| node.ready()).collect();
    let status = nodes[0].json(&["status"]).expect("json");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
    assert_eq!(status["failure_tolerance"]["coordinator"], 1);
    assert_eq!(status["failure_tolerance"]["session_writes"], 1);
    assert_eq!(status["failure_tolerance"]["session_reads"], 2);

    let victim = status["raft"]["leader"].as_str().expect("a leader").to_owned();
    let at = nodes.iter().position(|node| node.fact("name") == victim).expect("one of ours");
    nodes.remove(at).kill();
    let status = eventually("the others see it and lead on", || {
        let status = nodes[0].json(&["status"])?;
        let dead = status["nodes"].as_array()?.iter().find(|node| node["name"] == victim)?;
        let led = status["raft"]["leader"].as_str().is_some_and(|leader| leader != victim);
        // The node's health follows its leader a moment later.
        (dead["state"] == "dead" && led && status["health"] == "degraded").then_some(status)
    });
    assert_eq!(status["failure_tolerance"]["coordinator"], 0);
    assert_eq!(status["failure_tolerance"]["session_writes"], 0);

    let check = eventually("a commit and a session go through", || {
        let output = nodes[0].json(&["check"])?;
        let groups = output["groups"].as_array()?.clone();
        let results = groups.iter().flat_map(|group| group["results"].as_array().cloned());
        let good = |text: &str| {
            let mut flat = results.clone().flatten();
            flat.any(|r| r["status"] == "ok" && r["message"].as_str().is_some_and(|m| m.contains(text)))
        };
        (good("raft: leader") && good("a test session was written")).then_some(output)
    });
    assert!(check.to_string().contains("2/3 nodes alive"), "{check}");
}
