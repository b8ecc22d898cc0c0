//! The MCP servers behind this edge, alive: processes, HTTP upstreams, their health and lists.
//!
//! `mod.rs` and `types.rs` are the interface between the front (clients) and the back (servers).
//! Nothing here knows a downstream session beyond [`Peer`].
//!
//! | file | what |
//! |---|---|
//! | `backends`, `names` | all of them, in step with the registry; which names it has at this moment |
//! | `server`, `control` | one of them: who gets which conversation; its life, lists and health |
//! | `connect` | which era it speaks |
//! | `upstream` | one conversation, one request |
//! | `link`, `seat`, `process`, `spawner`, `exec` | stdio: requests over two pipes, the process, its supervisor |
//! | `http` | Streamable HTTP |
//! | `rewrite` | what changes in a message on its way |
//! | `shelf` | the catalogue as it changes |

mod backends;
mod connect;
mod control;
mod error;
pub mod exec;
mod http;
mod link;
mod metrics;
mod names;
mod process;
mod rewrite;
mod seat;
mod server;
mod shelf;
mod spawner;
mod types;
mod upstream;

pub use backends::Backends;
pub use error::BackendError;
pub use server::Backend;
pub use types::{
    BackendsConfig, CallMeta, Core, Definitions, Era, FixedBackend, FromBackend, Peer, RawId, Said,
    Unsolicited,
};
pub use upstream::{Exchange, Late, Upstream};
