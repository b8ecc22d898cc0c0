//! Over gRPC on TCP: the server on one thread, the client on another, each with a runtime of
//! its own, on the same cores.

use super::{AREA, memory::Random, names, peers};
use crate::report::Row;
use anyhow::{Context, Result};
use kit::{host::Host, rpc::with_deadline};
use proto::registry::{
    Durability, Kind, LookupRequest, PackedLookup, RegisterRequest, Registration,
    registry_service_client::RegistryServiceClient,
};
use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};
use tonic::transport::Channel;

type Stub = RegistryServiceClient<Channel>;

const BATCH: usize = 256;
const IN_FLIGHT: usize = 16;
const DEADLINE: Duration = Duration::from_secs(60);
/// Calls in flight over all connections.
const CALLS: usize = 256;
const CONNECTIONS: usize = 4;

pub(super) fn rows(many: usize, length: Duration) -> Result<Vec<Row>> {
    let names: Arc<Vec<String>> = Arc::new(names(many));
    let (address, addresses) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = thread::spawn(move || serve(&address, stopped));
    let address = addresses.recv().context("the server did not start")?;
    let rows = runtime()?.block_on(measure(&address, &names, length));
    drop(stop);
    server.join().map_err(|_| anyhow::anyhow!("the server failed"))??;
    rows
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn serve(address: &mpsc::Sender<String>, stopped: oneshot::Receiver<()>) -> Result<()> {
    runtime()?.block_on(async {
        let host = Host::for_test("bench").await;
        let config = registry_svc::Config { queue: 100_000, ..Default::default() };
        let running = registry_svc::start(config, host.context()).await?;
        let served = host.serve().await;
        address.send(format!("http://{}", running.addr))?;
        let _ = stopped.await;
        served.kill().await;
        Ok(())
    })
}

async fn measure(address: &str, names: &Arc<Vec<String>>, length: Duration) -> Result<Vec<Row>> {
    let mut stubs = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Channel::from_shared(address.to_owned())?.tcp_nodelay(true);
        let windows = endpoint.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20);
        stubs.push(Stub::new(windows.connect().await?));
    }
    let registers = register(&stubs, names).await?;
    let (packed, p99) = packed(stubs.first().cloned().context("no connection")?, names, length).await?;
    let unary = unary(&stubs, names, length).await?;
    let stream = Row::new(AREA, "LookupStream, 1M names, 256 x 16", packed, "lookups/s");
    let (gets, sets) = peers::redis(names, length).unzip();
    let beside = |row: Row, peer: Option<f64>, name| match peer {
        Some(rate) => row.against(name, rate),
        None => row,
    };
    let registers = Row::new(AREA, "Register over gRPC, unary, in memory", registers, "registers/s");
    Ok(vec![
        beside(stream, gets, "redis GET x64").goal(">= 20M", packed >= 20e6),
        Row::new(AREA, "LookupStream p99", p99, "us").goal("<= 1000", p99 <= 1000.0),
        Row::new(AREA, "Lookup, unary", unary, "lookups/s").goal(">= 150K", unary >= 150e3),
        beside(registers, sets, "redis SET x64"),
    ])
}

/// Registers every name; answers how many a second.
async fn register(stubs: &[Stub], names: &Arc<Vec<String>>) -> Result<f64> {
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for worker in 0..CALLS {
        let (mut stub, names) = (stubs[worker % stubs.len()].clone(), names.clone());
        calls.spawn(async move {
            for name in names.iter().skip(worker).step_by(CALLS) {
                let registration = Some(registration(name));
                let request = RegisterRequest { registration, ttl_ms: 3_600_000, ..Default::default() };
                stub.register(with_deadline(request, DEADLINE)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(names.len() as f64 / start.elapsed().as_secs_f64())
}

fn registration(name: &str) -> Registration {
    Registration {
        name: name.into(),
        owner: "bench".into(),
        kind: Kind::Worker.into(),
        durability: Durability::Ephemeral.into(),
        ..Default::default()
    }
}

async fn unary(stubs: &[Stub], names: &Arc<Vec<String>>, length: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for worker in 0..CALLS {
        let (mut stub, names) = (stubs[worker % stubs.len()].clone(), names.clone());
        calls.spawn(async move {
            let (mut random, mut count) = (Random(worker as u64), 0);
            while start.elapsed() < length {
                let name = random.pick(&names).to_owned();
                stub.lookup(with_deadline(LookupRequest { name, ..Default::default() }, DEADLINE)).await?;
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

/// Lookups a second, and the 99th percentile of a batch in microseconds. The batches are packed
/// before, and every name comes in one of them.
async fn packed(mut stub: Stub, names: &[String], length: Duration) -> Result<(f64, f64)> {
    let mut random = Random(1);
    let mut batch = || -> Vec<u8> {
        let picked = (0..BATCH).map(|_| random.pick(names));
        picked.flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect()
    };
    let batches: Vec<bytes::Bytes> = (0..names.len() / BATCH).map(|_| batch().into()).collect();
    let (sender, requests) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = stub.lookup_stream(with_deadline(requests, DEADLINE)).await?.into_inner();
    let (start, mut sent, mut latencies) = (Instant::now(), VecDeque::new(), Vec::new());
    let mut batches = batches.iter().cycle().zip(0u64..);
    loop {
        while sent.len() < IN_FLIGHT && start.elapsed() < length {
            let Some((names, id)) = batches.next() else { break };
            sender.send(PackedLookup { id, names: names.clone() }).await?;
            sent.push_back(Instant::now());
        }
        let Some(at) = sent.pop_front() else { break };
        let answer = answers.message().await?.context("the stream ended")?;
        anyhow::ensure!(answer.answers.len() == BATCH * 8, "a short answer");
        anyhow::ensure!(answer.answers.chunks(8).all(|word| word.last() > Some(&127)), "a name was missed");
        latencies.push(at.elapsed());
    }
    let rate = (latencies.len() * BATCH) as f64 / start.elapsed().as_secs_f64();
    Ok((rate, quantile_us(latencies, 0.99)))
}

fn quantile_us(mut all: Vec<Duration>, quantile: f64) -> f64 {
    all.sort();
    let at = (all.len() as f64 * quantile) as usize;
    all.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
}
