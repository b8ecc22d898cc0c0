//! gossip-svc
