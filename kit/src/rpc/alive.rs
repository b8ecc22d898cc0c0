//! Whether the other end of a connection is still there.

use h2::{Ping, PingPong};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Ends when the other end has not answered a ping within `patience`. Pings every `interval`.
pub(super) async fn until_dead(pings: Option<PingPong>, interval: Duration, patience: Duration) {
    let Some(mut pings) = pings else {
        // Somebody else asks already.
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        match timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection tells by itself how it ended.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
