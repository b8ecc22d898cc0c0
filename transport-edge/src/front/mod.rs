//! Towards clients: listeners, both protocol eras, the way to a backend.

mod answer;
mod body;
mod conn;
mod converse;
mod edge;
mod entry;
mod io;
mod kill;
mod legacy;
mod listen;
mod lists;
mod modern;
mod problems;
mod route;
mod server;
mod shared;

pub(crate) use answer::{Reply, empty, json};
pub(crate) use body::{Answer, Outlet, events};
pub(crate) use conn::{Inbound, scope};
pub(crate) use edge::{Edge, Principal};
pub(crate) use kill::Kill;
pub(crate) use listen::Listeners;
pub(crate) use shared::Shared;

pub(crate) use converse::{ask_client, resend};
pub(crate) use legacy::handle as serve_session;
pub(crate) use lists::{changed as changed_lists, settled};
pub(crate) use problems::{node_lost, session_gone, unavailable};
pub(crate) use route::{Memo, repeatable};
pub(crate) use server::{Stages, bind, start};
