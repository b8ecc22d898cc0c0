//! The image alone: all five services in one container, as a user without compose runs it.

use anyhow::Result;
use containers::{eventually, output, python, swarm_image};
use std::{process::Command, time::Duration};
use testcontainers::{
    GenericImage, ImageExt, core::{IntoContainerPort, WaitFor}, runners::AsyncRunner,
};

#[tokio::test]
async fn the_image_serves_without_a_writable_root_or_a_capability() -> Result<()> {
    let image = swarm_image();
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let container = GenericImage::new(name, tag)
        .with_exposed_port(7700.tcp())
        .with_wait_for(WaitFor::message_on_stdout("ready name="))
        .with_cmd(["up", "--data", "/data", "--mcp", "0.0.0.0:7700", "--import", "/etc/swarm.json"])
        .with_copy_to("/etc/swarm.json", br#"{"mcpServers":{"local":{"command":"/swarm","args":["example-server"]}}}"#.to_vec())
        .with_cap_drop("ALL")
        .with_startup_timeout(Duration::from_secs(60))
        .start()
        .await?;
    let id = container.id().to_owned();
    let port = container.get_host_port_ipv4(7700.tcp()).await?;
    let url = format!("http://127.0.0.1:{port}/mcp");

    for mode in ["legacy", "2026-07-28"] {
        let url = url.clone();
        tokio::task::spawn_blocking(move || python("bin", "compose_client.py", &[&url, &url, mode, "local"])).await??;
    }
    eventually("docker sees the healthcheck hold", Duration::from_secs(30), || {
        let health = output(Command::new("docker").args(["inspect", "-f", "{{.State.Health.Status}}", &id]))?;
        anyhow::ensure!(health == "healthy", "{health}");
        Ok(())
    })?;
    let user = output(Command::new("docker").args(["inspect", "-f", "{{.Config.User}}", &id]))?;
    assert_eq!(user, "65532:65532");
    container.stop_with_timeout(Some(10)).await?;
    let code = output(Command::new("docker").args(["inspect", "-f", "{{.State.ExitCode}}", &id]))?;
    assert_eq!(code, "0", "SIGTERM drains and ends well");
    Ok(())
}
