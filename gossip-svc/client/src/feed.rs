//! Keeps a watch open and writes what it says.

use crate::{
    GossipClient,
    calls::is_away,
    view::{Member, View, instances},
};
use kit::{
    backoff::Backoff, clock::Clock, directory::DirectoryWriter, readiness::Condition, rpc::with_deadline,
    shutdown::Shutdown,
};
use proto::gossip::{
    MembersRequest, WatchRequest, WatchResponse, gossip_service_client::GossipServiceClient,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::{Status, Streaming};

/// Longest wait for the head of a watch.
const OPEN: Duration = Duration::from_secs(1);
/// How often the first endpoint is tried again while another stands in.
const RETURN: Duration = Duration::from_secs(5);

/// Where views go.
pub(crate) struct Feed {
    pub(crate) client: GossipClient,
    pub(crate) writer: DirectoryWriter,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ready: Condition,
}

/// Follows one endpoint after the other until the node stops.
pub(crate) async fn run(feed: Arc<Feed>, shutdown: Shutdown) {
    let mut backoff = Backoff::random(Duration::from_millis(20), Duration::from_millis(500));
    let mut index = 0;
    loop {
        tokio::select! {
            // The last view stays in force for the drain.
            () = shutdown.wait() => return,
            end = feed.follow(index, &mut backoff) => match end {
                End::Returned => index = 0,
                End::Lost(why) => {
                    feed.lost(index, &why);
                    index = (index + 1) % feed.client.endpoints().max(1);
                    feed.pause(&mut backoff, &shutdown).await;
                }
            },
        }
    }
}

enum End {
    /// The first endpoint answers again.
    Returned,
    Lost(String),
}

impl Feed {
    async fn follow(&self, index: usize, backoff: &mut Backoff) -> End {
        let mut views = match self.open(index).await {
            Ok(views) => views,
            Err(status) => return End::Lost(status.message().to_owned()),
        };
        let mut returning = tokio::time::interval(RETURN);
        returning.reset();
        loop {
            tokio::select! {
                view = views.message() => match view {
                    Ok(Some(view)) => {
                        backoff.reset();
                        self.client.prefer(index);
                        self.show(view);
                    }
                    Ok(None) => return End::Lost("the watch ended".into()),
                    Err(status) => return End::Lost(status.message().to_owned()),
                },
                _ = returning.tick(), if index != 0 => {
                    if self.answers(0).await {
                        return End::Returned;
                    }
                }
            }
        }
    }

    async fn open(&self, index: usize) -> Result<Streaming<WatchResponse>, Status> {
        let none = || Status::unavailable("no gossip endpoint is configured");
        let (_, channel) = self.client.endpoint(index).ok_or_else(none)?;
        let mut client = GossipServiceClient::new(channel).max_decoding_message_size(kit::rpc::MAX_MESSAGE);
        let opened = tokio::time::timeout(OPEN, client.watch(with_deadline(WatchRequest {}, OPEN)));
        let opened = opened.await.map_err(|_| Status::unavailable("no answer within 1 s"))?;
        opened.map(tonic::Response::into_inner)
    }

    async fn answers(&self, index: usize) -> bool {
        let Some((_, channel)) = self.client.endpoint(index) else { return false };
        let call =
            async { GossipServiceClient::new(channel).members(with_deadline(MembersRequest {}, OPEN)).await };
        match tokio::time::timeout(OPEN, call).await {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => !is_away(&status),
            Err(_) => false,
        }
    }

    fn show(&self, view: WatchResponse) {
        let members: Vec<_> = view.members.into_iter().map(Member::from).collect();
        self.writer.set(instances(&members));
        let view = View { members, own: view.self_, version: view.view_version, stale_since: None };
        let before = self.views.send_replace(Arc::new(view));
        if before.stale_since.is_some() {
            tracing::info!("gossip answers again");
        }
        self.ready.met();
    }

    async fn pause(&self, backoff: &mut Backoff, shutdown: &Shutdown) {
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = shutdown.wait() => {}
        }
    }

    /// The last known view stays, and says that it is old.
    fn lost(&self, index: usize, why: &str) {
        let endpoint = self.client.endpoint(index).map_or("none", |(endpoint, _)| endpoint);
        let now = self.clock.now();
        let marked = self.views.send_if_modified(|view| {
            let news = view.stale_since.is_none();
            if news {
                *view = Arc::new(View { stale_since: Some(now), ..View::clone(view) });
            }
            news
        });
        if marked {
            tracing::warn!(endpoint, why, "gossip does not answer; the last known members stay");
        }
    }
}
