//! The real binary in a process of its own.

use kit::{
    clock::SystemClock,
    directory::{Directory, Instance, State},
    net::TcpNet,
    rpc::Channels,
};
use registry_client::RegistryClient;
use rustix::process::{Pid, Signal, kill_process};
use std::{collections::BTreeMap, path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

pub(crate) struct Process {
    child: Child,
    /// host:port
    pub(crate) grpc: String,
    admin: String,
}

impl Process {
    /// Starts it on a data directory and waits for its ready line. Settings are variables of
    /// the environment.
    pub(crate) async fn start(data: &Path, grpc: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_registry-svc"))
            .args(["--name", "n1", "--admin", "127.0.0.1:0", "--grpc", grpc, "--data"])
            .arg(data)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("ready") {
                    return line;
                }
            }
            panic!("it ended before it was ready");
        };
        let line = tokio::time::timeout(Duration::from_secs(30), ready).await.unwrap();
        let address = |key: &str| {
            let address = line.split_whitespace().find_map(|pair| pair.strip_prefix(key)).unwrap();
            address.trim_start_matches("http://").to_owned()
        };
        Self { grpc: address("grpc="), admin: address("admin="), child }
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stands still until [`Process::go_on`].
    pub(crate) fn stand_still(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// A metric, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.admin).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = text.lines().filter(of_it).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>());
        values.map(Result::unwrap).sum()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap() as i32).unwrap()
    }
}

/// A client with connections of its own.
pub(crate) fn client(addr: &str) -> RegistryClient {
    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    RegistryClient::new(channels, Directory::fixed(vec![instance(addr)]), None)
}

pub(crate) fn instance(addr: &str) -> Instance {
    Instance {
        service: "registry".into(),
        name: "n1".into(),
        addr: addr.into(),
        generation: 0,
        zone: String::new(),
        state: State::Up,
        meta: BTreeMap::new(),
    }
}
