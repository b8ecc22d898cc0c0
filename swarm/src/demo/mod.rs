//! demo
mod balancer;
