//! Lookups through the client's tiers, beside a registry in the same process. Rust's own
//! clock is read once in a round, as a caller reads it once in a request.

use super::{
    FEW, Samples,
    names::{LENGTH, Random, text},
};
use anyhow::{Context as _, Result};
use kit::host::{Host, Served};
use proto::registry::{
    BackendSpec, Durability, HttpTransport, Kind, Registration, backend_spec::Transport, registration::Spec,
};
use registry_client::{
    RegistryClient, Tiers,
    tiers::{Known, Local},
};
use std::time::{Duration, Instant};
use tokio::{runtime::Runtime, task::JoinSet};

/// Names that a busy thread asks for again and again.
const HOT: u64 = 100;
const ROUND: usize = 1024;
/// Names in an order of them.
const ORDER: usize = 1 << 14;
const WRITERS: usize = 64;

/// A registry of few names, and the copy of them.
pub(super) struct Copy {
    runtime: Runtime,
    served: Served,
    tiers: Tiers,
    names: Vec<String>,
}

impl Copy {
    pub(super) fn start() -> Result<Copy> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let names: Vec<String> = (0..FEW).map(text).collect();
        let (served, tiers) = runtime.block_on(start(&names))?;
        Ok(Copy { runtime, served, tiers, names })
    }

    pub(super) fn round(&self, samples: &mut Samples) -> Result<()> {
        let Copy { runtime, tiers, names, .. } = self;
        let (hot, any, length) = (order(HOT), order(FEW), samples.length);
        let (hot, any) = (split(&hot), split(&any));
        let get = |local: &mut Local, name: &str, now| matches!(local.get(name, now), Known::Found(_));
        let has = |local: &mut Local, name: &str, now| local.has(name, now) == Some(true);
        let mut local = tiers.local("bench");
        samples.add("L1 hit, 100 names of 10K", nanoseconds(&mut local, &hot, length, get)?);
        // So many names that the handles leave themselves out.
        samples.add("L2 hit, 10K names at random", nanoseconds(&mut local, &any, length, get)?);
        samples.add("L2 hit, 10K names, whether one is there", nanoseconds(&mut local, &any, length, has)?);
        samples.add("L3, in the same process, by Tiers::ask", asked(runtime, tiers, names, length)?);
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.runtime.block_on(self.served.kill());
    }
}

/// A registry, its names, and the node's copy of them.
async fn start(names: &[String]) -> Result<(Served, Tiers)> {
    let mut host = Host::for_test("bench").await;
    let writer = host.directory_writer().context("the directory has a writer")?;
    let context = host.context().clone();
    tokio::spawn(writer.follow(context.announce.clone()));
    registry_svc::start(registry_svc::Config::default(), &context).await?;
    let served = host.serve().await;
    context.readiness.wait_ready().await;
    let client = RegistryClient::of(&context);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, names) = (client.clone(), names.to_vec());
        writers.spawn(async move {
            for name in names.iter().skip(writer).step_by(WRITERS) {
                client.register(registration(name), false).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let tiers = Tiers::of(&context);
    tiers.mirror().synced().await;
    Ok((served, tiers))
}

fn registration(name: &str) -> Registration {
    let http = HttpTransport { url: "http://127.0.0.1:9000/mcp".into(), ..Default::default() };
    let backend = BackendSpec { transport: Some(Transport::Http(http)), ..Default::default() };
    Registration {
        spec: Some(Spec::Backend(backend.into())),
        name: name.into(),
        owner: "bench".into(),
        kind: Kind::Backend.into(),
        durability: Durability::Durable.into(),
        ..Default::default()
    }
}

/// Names below a number at random, one after the other in one piece of memory, as they come off
/// the wire: to pick them out of a table would cost each lookup a cache miss that is not its own.
fn order(below: u64) -> String {
    let mut random = Random(below);
    (0..ORDER).map(|_| text(random.below(below))).collect()
}

fn split(order: &str) -> Vec<&str> {
    (0..ORDER).filter_map(|n| order.get(n * LENGTH..(n + 1) * LENGTH)).collect()
}

/// Of one lookup.
fn nanoseconds(
    local: &mut Local,
    order: &[&str],
    length: Duration,
    look: impl Fn(&mut Local, &str, Instant) -> bool,
) -> Result<f64> {
    let (start, mut count, mut missed) = (Instant::now(), 0, 0);
    let mut now = start;
    for names in order.chunks_exact(ROUND).cycle() {
        missed += names.iter().filter(|name| !look(local, name, now)).count();
        count += ROUND;
        now = Instant::now();
        if now.saturating_duration_since(start) >= length {
            break;
        }
    }
    anyhow::ensure!(missed == 0, "{missed} of {count} lookups went to the shard");
    Ok(now.saturating_duration_since(start).as_secs_f64() * 1e9 / count as f64)
}

fn asked(runtime: &Runtime, tiers: &Tiers, names: &[String], length: Duration) -> Result<f64> {
    runtime.block_on(async {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < length {
            for name in names.iter().take(ROUND) {
                let answer = tiers.ask(name).await?;
                anyhow::ensure!(answer.registration.is_some(), "{name} was missed");
            }
            count += ROUND;
        }
        Ok(start.elapsed().as_secs_f64() * 1e9 / count as f64)
    })
}
