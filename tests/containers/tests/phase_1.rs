//! `compose/phase-1.yaml`: the registry, one edge in its simple mode, NATS.

use anyhow::{Context as _, Result, ensure};
use containers::{Compose, Load, admin, eventually, python, swarm_image};
use serde_json::{Value, json};
use std::time::Duration;

const FLAG: &str = "registry.sharding";
/// Operations of the load between two changes of the flag.
const STEP: u64 = 100;

fn start() -> Result<Compose> {
    let image = swarm_image();
    let free = ["SWARM_PORT", "SWARM_ADMIN", "SWARM_REGISTRY_ADMIN", "SWARM_REGISTRY_GRPC"];
    let mut environment = vec![("SWARM_IMAGE", image.as_str())];
    environment.extend(free.map(|port| (port, "0")));
    let compose = Compose::up("phase-1.yaml", &environment)?;
    compose.wait_healthy(Duration::from_secs(60))?;
    Ok(compose)
}

/// By the image's own command at the edge; the registry reads the same file.
fn set(compose: &Compose, arguments: &[&str]) -> Result<()> {
    compose.swarm("edge", &[&["flags"][..], arguments, &["--reason", "a test"]].concat())?;
    let wanted = flag(compose, "edge", arguments[1])?;
    // A second, and what starting commands in containers takes.
    eventually("the registry follows", Duration::from_secs(3), || {
        let found = flag(compose, "registry", arguments[1])?;
        ensure!(found == wanted, "the registry has {found}, the edge {wanted}");
        Ok(())
    })
}

fn flag(compose: &Compose, service: &str, key: &str) -> Result<String> {
    let flag: Value = serde_json::from_str(&compose.swarm(service, &["flags", "get", key, "-o", "json"])?)?;
    Ok(flag["setting"].as_str().context("a setting")?.to_owned())
}

fn compared(compose: &Compose, result: &str) -> Result<u64> {
    let metrics = admin(compose.port("registry", 7600)?, "GET", "/metrics", "")?;
    let line = format!("swarm_shadow_compared_total{{flag=\"{FLAG}\",result=\"{result}\"}} ");
    let count = metrics.lines().find_map(|found| found.strip_prefix(&line)).context("no count")?;
    Ok(count.trim().parse()?)
}

fn names(compose: &Compose) -> Result<Vec<String>> {
    let listed: Value = serde_json::from_str(&compose.swarm("edge", &["registry", "list", "-o", "json"])?)?;
    let all = listed["registrations"].as_array().context("registrations")?.iter();
    Ok(all.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
}

#[test]
fn the_flag_switches_under_load_and_a_killed_registry_finds_every_durable_name() -> Result<()> {
    let compose = start()?;
    let url = format!("http://127.0.0.1:{}/mcp", compose.port("edge", 7700)?);
    let api = format!("http://127.0.0.1:{}", compose.port("edge", 7600)?);
    for mode in ["legacy", "2026-07-28"] {
        python("bin", "compose_client.py", &[&url, &url, mode])?;
    }

    let mut load = Load::start(&url, &api)?;
    load.passes(STEP)?;
    for variant in ["off", "shadow", "on", "off", "shadow", "on"] {
        set(&compose, &["set", FLAG, variant])?;
        load.passes(STEP)?;
    }
    set(&compose, &["kill", FLAG])?;
    load.passes(STEP)?;
    set(&compose, &["kill", FLAG, "--lift"])?;
    set(&compose, &["set", FLAG, "on", "--percent", "50"])?;
    load.passes(STEP)?;
    let done = load.end()?;
    println!("under load: {done}");
    assert_eq!(done["failed"].as_array().map(Vec::len), Some(0), "{done}");
    assert!(compared(&compose, "match")? > 0);
    for result in ["mismatch", "error", "timeout"] {
        assert_eq!(compared(&compose, result)?, 0, "{result}");
    }

    let servers: Vec<_> = (10..40)
        .map(|n| json!({"name": format!("kept-{n}"), "transport": "http", "url": "http://example:9000/mcp"}))
        .collect();
    let servers = json!({ "servers": servers }).to_string();
    admin(compose.port("edge", 7600)?, "POST", "/api/v1/registry/import", &servers)?;
    let before = names(&compose)?;
    assert_eq!(before.len(), 32, "{before:?}");
    let setting = flag(&compose, "registry", FLAG)?;
    compose.kill("registry")?;
    python("bin", "compose_client.py", &[&url, &url, "legacy"]).context("the edge serves what it knows")?;
    compose.start("registry")?;
    compose.wait_healthy(Duration::from_secs(30))?;
    eventually("every durable name is there again", Duration::from_secs(20), || {
        let found = names(&compose)?;
        ensure!(found == before, "{found:?}");
        Ok(())
    })?;
    assert_eq!(flag(&compose, "registry", FLAG)?, setting, "the flag outlived the crash");
    python("bin", "compose_client.py", &[&url, &url, "legacy"])?;
    Ok(())
}
