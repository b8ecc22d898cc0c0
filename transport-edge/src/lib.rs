//! transport-edge
