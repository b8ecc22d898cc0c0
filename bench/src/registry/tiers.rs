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
const HOT: usize = 100;
/// Names that are asked at random before the first one comes again.
const ORDER: usize = 1 << 18;
const ROUND: usize = 1024;
const WRITERS: usize = 64;

/// A registry of few names, and the copy of them.
pub(super) struct Copy {
    runtime: Runtime,
    served: Served,
    tiers: Tiers,
    names: Vec<String>,
    // Names at random, as a caller's lie in its request: one after the other in one piece of memory.
    order: String,
}

impl Copy {
    pub(super) fn start() -> Result<Copy> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let names: Vec<String> = (0..FEW).map(text).collect();
        let (served, tiers) = runtime.block_on(start(&names))?;
        let mut random = Random(1);
        let order = (0..ORDER).map(|_| text(random.below(FEW))).collect();
        Ok(Copy { runtime, served, tiers, names, order })
    }

    pub(super) fn round(&self, samples: &mut Samples) -> Result<()> {
        let Copy { runtime, tiers, names, order, .. } = self;
        let length = samples.length;
        let get = |local: &mut Local, name: &str, now| matches!(local.get(name, now), Known::Found(_));
        let mut local = tiers.local("bench");
        let mut hot = names.iter().take(HOT).cycle();
        let next_hot = || hot.next().map_or("", String::as_str);
        samples.add("L1 hit, 100 names of 10K", nanoseconds(&mut local, length, next_hot, get)?);
        let mut rest = "";
        let any = || {
            let (name, after) = rest.split_at_checked(LENGTH).unwrap_or_else(|| order.split_at(LENGTH));
            rest = after;
            name
        };
        // So many names that the handles leave themselves out.
        samples.add("L2 hit, 10K names at random", nanoseconds(&mut local, length, any, get)?);
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

/// Of one lookup of the next name.
fn nanoseconds<'a>(
    local: &mut Local,
    length: Duration,
    mut next: impl FnMut() -> &'a str,
    look: impl Fn(&mut Local, &str, Instant) -> bool,
) -> Result<f64> {
    let (start, mut count, mut missed) = (Instant::now(), 0, 0);
    let mut now = start;
    while now.saturating_duration_since(start) < length {
        for _ in 0..ROUND {
            missed += usize::from(!look(local, next(), now));
        }
        count += ROUND;
        now = Instant::now();
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
