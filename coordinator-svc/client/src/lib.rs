//! coordinator-client
