//! Registers in process: the handlers of the RPCs without gRPC in front, through the same
//! checks, queues and writers.

use super::{Options, Part, Samples, names::text};
use anyhow::{Result, bail};
use kit::{
    config::{DataDir, NodeConfig},
    host::{Host, Parts},
};
use proto::registry::{
    Durability, Kind, RegisterBatchRequest, RegisterBatchResponse, RegisterRequest, Registration,
    register_outcome::Outcome, registration::Spec, registry_service_server::RegistryService,
};
use registry_svc::Handler;
use std::{ops::Range, sync::Arc, time::Instant};
use tokio::task::JoinSet;
use tonic::Request;

/// Callers whose registers share fsyncs.
const DURABLE_CALLERS: u64 = 512;
/// Names in one request, and requests in flight.
const BATCH: u64 = 1024;
const BATCHES: u64 = 4;

pub(super) fn config() -> registry_svc::Config {
    registry_svc::Config { queue: 16_384, ..Default::default() }
}

/// An ephemeral name; replaces one of another value.
pub(super) fn request(n: u64, value: &[u8]) -> RegisterRequest {
    let registration = Registration {
        name: text(n),
        owner: "bench".into(),
        kind: Kind::Worker.into(),
        durability: Durability::Ephemeral.into(),
        spec: (!value.is_empty()).then(|| Spec::Opaque(value.to_vec().into())),
        ..Default::default()
    };
    let registration = Some(registration);
    RegisterRequest { registration, ttl_ms: 3_600_000, replace: true, ..Default::default() }
}

/// The same of many names.
pub(super) fn batch(names: Range<u64>, value: &[u8]) -> RegisterBatchRequest {
    RegisterBatchRequest { entries: names.map(|n| request(n, value)).collect() }
}

/// Sees to it that each entry was registered.
pub(super) fn check(response: RegisterBatchResponse) -> Result<()> {
    for outcome in response.outcomes {
        if let Some(Outcome::Error(error)) = outcome.outcome {
            bail!("a name was not registered: {}", error.message);
        }
    }
    Ok(())
}

/// Registers all names.
pub(super) async fn fill(registry: &Arc<Handler>, names: u64) -> Result<()> {
    let mut calls = JoinSet::new();
    for caller in 0..BATCHES {
        let registry = registry.clone();
        calls.spawn(async move {
            for first in (caller * BATCH..names).step_by((BATCHES * BATCH) as usize) {
                let request = batch(first..names.min(first + BATCH), &[]);
                check(registry.register_batch(Request::new(request)).await?.into_inner())?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}

/// One of each, on two threads; in memory a quarter of the names, in a registry of their own.
pub(super) fn round(options: &Options, samples: &mut Samples) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let memory = runtime.block_on(in_memory(options.names / 4))?;
    samples.add("register in process, in memory, batches of 1024", memory);
    if !options.has(Part::Register) {
        return Ok(());
    }
    let fsynced = runtime.block_on(fsynced(samples.length.as_secs_f64()))?;
    samples.add("register in process, fsynced, 512 in flight", fsynced);
    Ok(())
}

async fn in_memory(names: u64) -> Result<f64> {
    let host = Host::for_test("bench").await;
    let (_, registry) = registry_svc::embed(config(), host.context()).await?;
    let served = host.serve().await;
    let start = Instant::now();
    fill(&registry, names).await?;
    let rate = names as f64 / start.elapsed().as_secs_f64();
    served.kill().await;
    Ok(rate)
}

/// Durable names; each answer comes after an fsync of the disk under the temporary directory.
async fn fsynced(seconds: f64) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let data = DataDir::Path(folder.path().to_owned());
    let node = NodeConfig { data, ..NodeConfig::for_test("bench") };
    let host = Host::bind(&node, Parts::default()).await?;
    let (_, registry) = registry_svc::embed(config(), host.context()).await?;
    let served = host.serve().await;
    let names = (seconds * 40_000.0) as u64;
    let start = Instant::now();
    each(&registry, DURABLE_CALLERS, names, durable).await?;
    let rate = names as f64 / start.elapsed().as_secs_f64();
    served.kill().await;
    Ok(rate)
}

fn durable(n: u64) -> RegisterRequest {
    let mut request = request(n, &[]);
    if let Some(registration) = &mut request.registration {
        registration.durability = Durability::Durable.into();
    }
    RegisterRequest { ttl_ms: 0, ..request }
}

/// Registers the names from as many callers, each with one in flight.
async fn each(
    registry: &Arc<Handler>,
    callers: u64,
    names: u64,
    request: fn(u64) -> RegisterRequest,
) -> Result<()> {
    let mut calls = JoinSet::new();
    for caller in 0..callers {
        let registry = registry.clone();
        calls.spawn(async move {
            for n in (caller..names).step_by(callers as usize) {
                registry.register(Request::new(request(n))).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}
