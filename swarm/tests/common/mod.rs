//! Real `swarm` processes on free ports.
#![allow(dead_code, unreachable_pub)]

use kit::rpc::with_deadline;
use proto::registry::{
    BackendSpec, Durability, HttpTransport, Kind, RegisterBatchRequest, RegisterRequest, Registration,
    backend_spec::Transport, register_outcome::Outcome, registration::Spec,
    registry_service_client::RegistryServiceClient,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::Duration,
};
use tonic::transport::Channel;

/// How long a node may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// The binary under test, without what the environment would say to it.
pub fn swarm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SWARM_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Output {
    swarm().args(args).output().expect("swarm starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A node; killed when dropped.
pub struct Node {
    child: Child,
    /// The ready line as it was printed.
    pub line: String,
    /// Its facts.
    pub ready: BTreeMap<String, String>,
}

impl Node {
    /// Starts `swarm up` on free ports with further options, and waits until it is ready.
    pub fn start(name: &str, data: &Path, args: &[&str]) -> Node {
        Node::spawn(name, data, args).ready()
    }

    /// Starts without waiting.
    pub fn spawn(name: &str, data: &Path, args: &[&str]) -> Starting {
        Node::spawn_as("up", name, data, args)
    }

    /// Starts `swarm up`, or one service alone.
    pub fn spawn_as(service: &str, name: &str, data: &Path, args: &[&str]) -> Starting {
        let mut command = swarm();
        command.args([service, "--name", name]).arg("--data").arg(data);
        for port in ["--mcp", "--admin", "--grpc", "--gossip"] {
            if !args.contains(&port) {
                command.args([port, "127.0.0.1:0"]);
            }
        }
        let log = std::fs::File::create(data.with_extension("log")).expect("a log");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("swarm starts");
        let stdout = child.stdout.take().expect("stdout");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Starting { child: Some(child), lines, log: data.with_extension("log") }
    }

    pub fn fact(&self, key: &str) -> &str {
        self.ready.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.line))
    }

    pub fn admin(&self) -> &str {
        self.fact("admin")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the node runs");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("it ends")
    }

    /// A page of the admin port, with its head.
    pub fn page(&self, path: &str) -> String {
        let address = self.admin().trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    }

    /// Registers all of them as a service does it: in one request, each for an hour.
    pub fn register(&self, registrations: Vec<Registration>) {
        let entry = |registration| RegisterRequest {
            request_id: proto::ids::request_id(),
            ttl_ms: 3_600_000,
            registration: Some(registration),
            ..RegisterRequest::default()
        };
        let entries = registrations.into_iter().map(entry).collect();
        let answer = self.registry(|mut registry| async move {
            let request = with_deadline(RegisterBatchRequest { entries }, READY);
            registry.register_batch(request).await.expect("an answer").into_inner()
        });
        for outcome in answer.outcomes {
            assert!(matches!(outcome.outcome, Some(Outcome::Registered(_))), "{outcome:?}");
        }
    }

    /// Asks registry-svc itself.
    pub fn registry<T, F>(&self, ask: impl FnOnce(RegistryServiceClient<Channel>) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let url = format!("http://{}", self.fact("grpc"));
            ask(RegistryServiceClient::connect(url).await.expect("connects")).await
        })
    }

    /// What an operator's command answers as JSON.
    pub fn json(&self, args: &[&str]) -> Option<Value> {
        let output = swarm().args(args).args(["-o", "json", "--endpoint", self.admin()]).output();
        serde_json::from_slice(&output.expect("swarm starts").stdout).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name of a kind, for [`Node::register`].
pub fn named(name: &str, kind: Kind, labels: &[(&str, &str)]) -> Registration {
    Registration {
        name: name.to_owned(),
        kind: kind.into(),
        owner: "team".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        durability: Durability::Ephemeral.into(),
        ..Registration::default()
    }
}

/// A backend over HTTP where nobody listens, for [`Node::register`].
pub fn backend(name: &str, zone: &str, labels: &[(&str, &str)]) -> Registration {
    let http = HttpTransport { url: "http://127.0.0.1:9/mcp".to_owned(), ..HttpTransport::default() };
    let transport = Some(Transport::Http(http));
    let spec = BackendSpec { transport, zone: zone.to_owned(), ..BackendSpec::default() };
    Registration { spec: Some(Spec::Backend(spec.into())), ..named(name, Kind::Backend, labels) }
}

/// A node that is not known to be ready.
pub struct Starting {
    child: Option<Child>,
    lines: mpsc::Receiver<String>,
    log: std::path::PathBuf,
}

impl Starting {
    pub fn ready(mut self) -> Node {
        let Ok(line) = self.lines.recv_timeout(READY) else {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("the node did not become ready: {log}");
        };
        let facts = line.strip_prefix("ready ").expect("a ready line");
        let pairs = facts.split(' ').filter_map(|pair| pair.split_once('='));
        let ready = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Node { child: self.child.take().expect("started"), line, ready }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Polls until `done` answers.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(found) = done() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within 30 s");
}
