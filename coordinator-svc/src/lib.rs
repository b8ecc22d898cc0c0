//! coordinator-svc
