//! What the container tests share: a runner for compose files that works with both
//! `docker compose` and `docker-compose`, and real MCP clients from the prepared packages.
//!
//! Everything started here is removed again, whichever way a test ends.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The swarm image under test, `name:tag`.
pub fn swarm_image() -> String {
    std::env::var("SWARM_IMAGE").unwrap_or_else(|_| "swarm:dev".into())
}

/// A compose project of its own name, taken down (volumes too) when dropped.
pub struct Compose {
    project: String,
    file: PathBuf,
    environment: Vec<(String, String)>,
}

impl Compose {
    /// Starts `compose/<file>` under a project name that no other run has.
    pub fn up(file: &str, environment: &[(&str, &str)]) -> Result<Compose> {
        let compose = Compose {
            project: format!("swarm-test-{}", std::process::id()),
            file: root().join("compose").join(file),
            environment: environment.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        };
        compose.run(&["up", "-d", "--no-build"])?;
        Ok(compose)
    }

    /// Waits until every service that has a healthcheck is healthy and the rest is running.
    pub fn wait_healthy(&self, deadline: Duration) -> Result<()> {
        eventually(&format!("{} is healthy", self.project), deadline, || {
            let states = self.states()?;
            ensure!(!states.is_empty(), "no containers");
            for (service, state) in states {
                ensure!(state == "healthy" || state == "running", "{service} is {state}");
            }
            Ok(())
        })
    }

    /// `(service, health or state)` of every container.
    pub fn states(&self) -> Result<Vec<(String, String)>> {
        let ids = output(Command::new("docker").args([
            "ps", "-aq", "--filter",
            &format!("label=com.docker.compose.project={}", self.project),
        ]))?;
        ids.split_whitespace().map(state_of).collect()
    }

    /// The id of a service's container.
    pub fn container(&self, service: &str) -> Result<String> {
        let id = output(Command::new("docker").args([
            "ps", "-aq",
            "--filter", &format!("label=com.docker.compose.project={}", self.project),
            "--filter", &format!("label=com.docker.compose.service={service}"),
        ]))?;
        ensure!(!id.is_empty(), "no container of {service}");
        Ok(id)
    }

    /// SIGKILLs a service; its restart policy does not bring it back.
    pub fn kill(&self, service: &str) -> Result<()> {
        output(Command::new("docker").args(["kill", &self.container(service)?])).map(drop)
    }

    /// Starts a killed service again.
    pub fn start(&self, service: &str) -> Result<()> {
        output(Command::new("docker").args(["start", &self.container(service)?])).map(drop)
    }

    /// The port of 127.0.0.1 at which a service's port is published.
    pub fn port(&self, service: &str, inside: u16) -> Result<u16> {
        let published = output(Command::new("docker").args([
            "port", &self.container(service)?, &inside.to_string(),
        ]))?;
        let port = published.lines().next().and_then(|line| line.rsplit(':').next());
        Ok(port.with_context(|| format!("{service}:{inside} is not published"))?.parse()?)
    }

    /// Runs a command of the image's own binary in a service's container.
    pub fn swarm(&self, service: &str, arguments: &[&str]) -> Result<String> {
        let container = self.container(service)?;
        output(Command::new("docker").args(["exec", &container, "/swarm"]).args(arguments))
    }

    /// The last lines that every container wrote, for a failing test.
    pub fn logs(&self) -> String {
        self.run(&["logs", "--no-color", "--tail", "15"]).unwrap_or_else(|error| error.to_string())
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = compose_command();
        command.arg("-p").arg(&self.project).arg("-f").arg(&self.file).args(arguments);
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        output(&mut command)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Err(error) = self.run(&["down", "-v", "--remove-orphans", "-t", "5"]) {
            eprintln!("could not take {} down: {error:#}", self.project);
        }
    }
}

fn compose_command() -> Command {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("docker");
        command.arg("compose");
        return command;
    }
    Command::new("docker-compose")
}

fn state_of(id: &str) -> Result<(String, String)> {
    let inspected = output(Command::new("docker").args(["inspect", id]))?;
    let inspected: Value = serde_json::from_str(&inspected)?;
    let container = &inspected[0];
    let service = container["Config"]["Labels"]["com.docker.compose.service"].as_str();
    let state = &container["State"];
    let health = state["Health"]["Status"].as_str().filter(|_| state["Running"] == true);
    let state = health.or(state["Status"].as_str()).unwrap_or("unknown");
    Ok((service.unwrap_or("?").to_owned(), state.to_owned()))
}

/// Runs one of the real clients in `tests/python` and returns what it printed.
pub fn python(environment: &str, script: &str, arguments: &[&str]) -> Result<String> {
    output(&mut python_command(environment, script, arguments))
}

fn python_command(environment: &str, script: &str, arguments: &[&str]) -> Command {
    let prepared = std::env::var_os("SWARM_PREPARED")
        .map_or_else(|| root().join("target/prepared"), PathBuf::from);
    let mut command = Command::new(prepared.join(environment).join("python"));
    command.arg(root().join("tests/python").join(script)).args(arguments);
    command
}

/// `tests/python/load_client.py` at work; it says `ops N` as it goes on.
pub struct Load {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it.
    pub fn start(url: &str, admin: &str) -> Result<Load> {
        let mut command = python_command("bin", "load_client.py", &[url, admin]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Load { child, lines })
    }

    /// Waits until it has done so many operations more.
    pub fn passes(&mut self, operations: u64) -> Result<()> {
        let mut first = None;
        loop {
            let mut line = String::new();
            ensure!(self.lines.read_line(&mut line)? > 0, "the load ended");
            let Some(count) = line.strip_prefix("ops ") else { bail!("the load says {line}") };
            let count: u64 = count.trim().parse()?;
            if count >= *first.get_or_insert(count) + operations {
                return Ok(());
            }
        }
    }

    /// Ends it; answers what it counted. An error when a single request failed.
    pub fn end(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        let last = rest.lines().last().unwrap_or_default().to_owned();
        ensure!(self.child.wait()?.success(), "the load failed: {last}");
        Ok(serde_json::from_str(&last)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer of a published admin port.
pub fn admin(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// Retries until it holds; the deadline's error is the last one seen.
pub fn eventually<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > deadline => {
                return Err(error.context(format!("not within {deadline:?}: {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Runs a command to its end; a failure carries its output.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {command:?}"))?;
    let stdout = String::from_utf8_lossy(&stdout).trim().to_owned();
    if !status.success() {
        bail!("{command:?} ended with {status}\n{stdout}\n{}", String::from_utf8_lossy(&stderr));
    }
    Ok(stdout)
}
