//! The registry as values: no socket, no clock, no task, no disk.
//!
//! | file | idea |
//! |---|---|
//! | `name` | a key inline in its slot |
//! | `key` | how properties and counters, which many owners hold, become keys |
//! | `table` | what readers see: shards of names, and their order |
//! | `single` | what readers see where names are not sharded: one ordered map |
//! | `shard` | the rules: one writer per shard decides commands in order |
//! | `batch` | what a shard has decided and nobody sees yet |
//! | `command` | what a shard is asked, and what it answers |
//! | `merge` | which version of a name wins, on every node alike |
//! | `tombstone` | names that were freed, so that they do not come back |
//! | `lease` | who lives until when |
//! | `recent` | answers to requests that may come again |
//! | `history` | what changed, in order, as far back as is kept |
//! | `status` | what edges say of backends |
//! | `check` | what may be registered |
//! | `route` | which instance owns which shard |
//! | `counter` | adding within bounds, each request once |
//! | `index` | sums of counters, and label keys, counted as names come and go |
//! | `select` | which registrations a listing asks for |
//! | `cursor` | page tokens |
//! | `waiters` | who waits for a name, or for the end of a registration |

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod command;
pub(crate) mod counter;
pub(crate) mod cursor;
pub(crate) mod history;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod merge;
pub(crate) mod name;
pub(crate) mod recent;
pub(crate) mod route;
pub(crate) mod select;
pub(crate) mod shard;
pub(crate) mod single;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod tombstone;
pub(crate) mod waiters;

#[cfg(test)]
mod model_test;
