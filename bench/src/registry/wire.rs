//! Over gRPC on TCP: a server with an event loop for each of two cores, as it is by default there
//! (`--loops`), and the client on a thread of its own, on the same cores.

use super::{
    Samples,
    names::{Random, name, text},
    register,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use kit::{
    config::NodeConfig,
    host::{Host, Parts},
    net::TcpNet,
    rpc::{Channel, with_deadline},
};
use proto::registry::{LookupRequest, PackedLookup, registry_service_client::RegistryServiceClient};
use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};

pub(super) type Stub = RegistryServiceClient<Channel>;

/// Names in a batch of registers.
const BATCH: u64 = 256;
/// Batches in flight, over all streams.
const IN_FLIGHT: usize = 16;
/// Streams of packed lookups, each over a connection of its own.
const STREAMS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(60);
/// Calls in flight over all connections.
const CALLS: usize = 256;
const CONNECTIONS: usize = 4;

/// A registry with all names, and connections to it.
pub(super) struct Wire {
    runtime: Runtime,
    stubs: Vec<Stub>,
    names: u64,
    large: Vec<Bytes>,
    small: Vec<Bytes>,
    server: Option<(oneshot::Sender<()>, JoinHandle<Result<()>>)>,
}

impl Wire {
    /// `loops` are the server's event loops; with none of its own it is served by one runtime of one thread.
    pub(super) fn start(names: u64, loops: usize, samples: &mut Samples) -> Result<Wire> {
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let server = thread::spawn(move || serve(names, loops, &ready, stopped));
        let (address, bytes) = started.recv().context("the server did not start")?;
        samples.add("bytes of a registration in the process", bytes);
        let runtime = runtime()?;
        let stubs = connect(&runtime, &address);
        let (large, small) = (packed(names, 1024), packed(names, 256));
        Ok(Wire { runtime, stubs, names, large, small, server: Some((stop, server)) })
    }

    pub(super) fn round(&self, samples: &mut Samples) -> Result<()> {
        let length = samples.length;
        let (rate, p99) = self.runtime.block_on(self.streams(&self.large, 1024, length))?;
        samples.add("LookupStream, 1M names, 1024 x 16", rate);
        samples.add("LookupStream, 1M names, 1024 x 16, p99", p99);
        let (rate, p99) = self.runtime.block_on(self.streams(&self.small, 256, length))?;
        samples.add("LookupStream, 1M names, 256 x 16", rate);
        samples.add("LookupStream, 1M names, 256 x 16, p99", p99);
        self.lookups(samples)?;
        let unary = self.runtime.block_on(self.calls(length, CALLS, replace))?;
        samples.add("Register over gRPC, unary, 256 in flight", unary);
        let batches = self.runtime.block_on(self.calls(length, IN_FLIGHT, replace_many))?;
        samples.add("RegisterBatch over gRPC, 256 x 16", batches * BATCH as f64);
        Ok(())
    }

    /// Unary lookups alone.
    pub(super) fn lookups(&self, samples: &mut Samples) -> Result<()> {
        let unary = self.runtime.block_on(self.calls(samples.length, CALLS, lookup))?;
        samples.add("Lookup over gRPC, unary, 256 in flight", unary);
        Ok(())
    }

    /// Lookups a second, and the 99th percentile of a batch in microseconds.
    async fn streams(&self, batches: &[Bytes], batch: usize, length: Duration) -> Result<(f64, f64)> {
        let start = Instant::now();
        let streams =
            self.stubs.iter().take(STREAMS).map(|stub| stream(stub.clone(), batches, batch, length));
        let latencies = futures::future::try_join_all(streams).await?.concat();
        let rate = (latencies.len() * batch) as f64 / start.elapsed().as_secs_f64();
        Ok((rate, quantile_us(latencies, 0.99)))
    }

    /// Calls per second over all connections, as many in flight; each is given a random name.
    async fn calls<F>(&self, length: Duration, callers: usize, call: fn(Stub, u64) -> F) -> Result<f64>
    where
        F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
    {
        let (start, names) = (Instant::now(), self.names);
        let mut calls = JoinSet::new();
        for worker in 0..callers {
            let stub = self.stubs.get(worker % self.stubs.len()).context("no connection")?.clone();
            calls.spawn(async move {
                let (mut random, mut count) = (Random(worker as u64), 0);
                while start.elapsed() < length {
                    call(stub.clone(), random.below(names)).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut count = 0;
        while let Some(done) = calls.join_next().await {
            count += done??;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((stop, server)) = self.server.take() {
            let _ = stop.send(());
            let _ = server.join();
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Registers the names and serves; tells the address and the bytes that each name costs.
fn serve(
    names: u64,
    loops: usize,
    ready: &mpsc::Sender<(String, f64)>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    runtime()?.block_on(async {
        let node = NodeConfig { grpc_loops: Some(loops), ..NodeConfig::for_test("bench") };
        let host = Host::bind(&node, Parts::default()).await?;
        let before = crate::process::own_resident_bytes()?;
        let (running, registry) = registry_svc::embed(register::config(), host.context()).await?;
        register::fill(&registry, names).await?;
        let bytes = (crate::process::own_resident_bytes()? - before) / names as f64;
        let served = host.serve().await;
        ready.send((running.addr.to_string(), bytes))?;
        let _ = stopped.await;
        served.kill().await;
        Ok(())
    })
}

/// Connections of their own, driven by this runtime.
fn connect(runtime: &Runtime, address: &str) -> Vec<Stub> {
    let _entered = runtime.enter();
    (0..CONNECTIONS).map(|_| Stub::new(Channel::new(Arc::new(TcpNet), address))).collect()
}

async fn lookup(mut stub: Stub, n: u64) -> Result<(), tonic::Status> {
    stub.lookup(with_deadline(LookupRequest { name: text(n), ..Default::default() }, DEADLINE))
        .await
        .map(drop)
}

/// Registers a name anew: another value of the same owner.
async fn replace(mut stub: Stub, n: u64) -> Result<(), tonic::Status> {
    let request = register::request(n, proto::ids::request_id().as_bytes());
    stub.register(with_deadline(request, DEADLINE)).await.map(drop)
}

/// The same of as many as a batch, one after the other.
async fn replace_many(mut stub: Stub, n: u64) -> Result<(), tonic::Status> {
    let first = n - n % BATCH;
    let request = register::batch(first..first + BATCH, proto::ids::request_id().as_bytes());
    let response = stub.register_batch(with_deadline(request, DEADLINE)).await?.into_inner();
    register::check(response).map_err(|error| tonic::Status::unknown(error.to_string()))
}

/// As many names as there are, in batches, each picked at random: what the client has to pack is
/// packed before, and the batches go through all of the table.
fn packed(names: u64, batch: usize) -> Vec<Bytes> {
    let mut random = Random(1);
    let mut pack = || -> Bytes {
        let picked = (0..batch).map(|_| name(random.below(names)));
        picked.flat_map(|name| [&[name.len() as u8], &name[..]].concat()).collect()
    };
    (0..(names as usize).div_ceil(batch)).map(|_| pack()).collect()
}

/// How long each batch of one stream took.
async fn stream(mut stub: Stub, batches: &[Bytes], batch: usize, length: Duration) -> Result<Vec<Duration>> {
    let (sender, requests) = tokio::sync::mpsc::channel(IN_FLIGHT / STREAMS);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = stub.lookup_stream(with_deadline(requests, DEADLINE)).await?.into_inner();
    let (start, mut sent, mut latencies) = (Instant::now(), VecDeque::new(), Vec::new());
    let mut batches = batches.iter().cycle().zip(0u64..);
    loop {
        while sent.len() < IN_FLIGHT / STREAMS && start.elapsed() < length {
            let Some((names, id)) = batches.next() else { break };
            sender.send(PackedLookup { id, names: names.clone() }).await?;
            sent.push_back(Instant::now());
        }
        let Some(at) = sent.pop_front() else { break };
        let answer = answers.message().await?.context("the stream ended")?;
        anyhow::ensure!(answer.answers.len() == batch * 8, "a short answer");
        anyhow::ensure!(answer.answers.chunks(8).all(|word| word.last() > Some(&127)), "a name was missed");
        latencies.push(at.elapsed());
    }
    Ok(latencies)
}

fn quantile_us(mut all: Vec<Duration>, quantile: f64) -> f64 {
    all.sort();
    let at = (all.len() as f64 * quantile) as usize;
    all.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
}
