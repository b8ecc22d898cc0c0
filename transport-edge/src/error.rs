//! Why the edge does not start.

/// What `start` can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// Flags that break a requirement, or that the environment names wrongly.
    #[error("flags")]
    Flags(#[source] kit::config::ConfigError),
    /// The MCP port cannot be bound.
    #[error("cannot listen on {addr} for mcp: {source}")]
    Bind {
        /// The address asked for.
        addr: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// An event loop cannot be made.
    #[error("cannot start an event loop: {0}")]
    Thread(std::io::Error),
}
