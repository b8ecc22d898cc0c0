//! Forgets what nobody needs any more: status reports that were not repeated, and tombstones
//! that are old and known to every peer.

use crate::{config::Config, handle::Handle};
use kit::host::Context;
use std::time::Instant;

const SERVICE: &str = "registry";

pub(crate) async fn run(context: Context, handle: Handle, config: Config) {
    // What had been published at the last round, and when.
    let mut mark: Option<(u64, Instant)> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(config.sweep_interval) => {}
            () = context.shutdown.wait() => return,
        }
        handle.sweep_reports();
        let now = handle.clock().now();
        if let Some((revision, at)) = mark
            && handle.feed().all_have(&peers(&context), revision)
            && let Some(old) = now.checked_sub(config.tombstone_retention)
        {
            // A round has passed since the peers' streams carried it, so they have taken it in.
            handle.reap(old.min(at)).await;
        }
        mark = Some((handle.feed().head(), now));
    }
}

/// Every other instance that is known, dead ones too: they may come back with old names.
fn peers(context: &Context) -> Vec<String> {
    let instances = context.directory.of(SERVICE).into_iter();
    instances.map(|instance| instance.name).filter(|name| *name != context.node).collect()
}
