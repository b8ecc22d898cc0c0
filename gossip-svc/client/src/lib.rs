//! gossip-client
