//! registry-svc
