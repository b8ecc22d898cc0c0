//! redis over loopback: one connection, 64 requests in flight.

use super::{
    Samples,
    names::{Random, name},
};
use anyhow::{Result, bail};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PIPELINE: u64 = 64;

/// A request around a name, and how long its answer is.
struct Verb {
    before: &'static [u8],
    after: &'static [u8],
    answer: usize,
}

const GET: Verb = Verb { before: b"*2\r\n$3\r\nGET\r\n$24\r\n", after: b"\r\n", answer: 23 };
const SET: Verb =
    Verb { before: b"*3\r\n$3\r\nSET\r\n$24\r\n", after: b"\r\n$16\r\n0123456789abcdef\r\n", answer: 5 };

/// A server with all names set, and a connection.
pub(super) struct Redis {
    child: Child,
    stream: TcpStream,
    random: Random,
    names: u64,
    request: Vec<u8>,
}

impl Redis {
    pub(super) fn start(names: u64) -> Result<Redis> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let stream = connect(&port).inspect_err(|_| drop(child.kill()))?;
        stream.set_nodelay(true)?;
        let mut redis = Redis { child, stream, random: Random(1), names, request: Vec::new() };
        for first in (0..names).step_by(PIPELINE as usize) {
            redis.exchange(&SET, first..names.min(first + PIPELINE))?;
        }
        Ok(redis)
    }

    pub(super) fn round(&mut self, samples: &mut Samples) -> Result<()> {
        samples.add("redis GET, 64 pipelined", self.rate(&GET, samples.length)?);
        samples.add("redis SET, 64 pipelined", self.rate(&SET, samples.length)?);
        Ok(())
    }

    fn rate(&mut self, verb: &Verb, length: Duration) -> Result<f64> {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < length {
            let picked: Vec<u64> = (0..PIPELINE).map(|_| self.random.below(self.names)).collect();
            self.exchange(verb, picked)?;
            count += PIPELINE;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    fn exchange(&mut self, verb: &Verb, names: impl IntoIterator<Item = u64>) -> Result<()> {
        self.request.clear();
        let mut count = 0;
        for n in names {
            self.request.extend_from_slice(verb.before);
            self.request.extend_from_slice(&name(n));
            self.request.extend_from_slice(verb.after);
            count += 1;
        }
        self.stream.write_all(&self.request)?;
        // Every answer has the same length.
        let mut answers = [0; PIPELINE as usize * 23];
        if let Some(answers) = answers.get_mut(..count * verb.answer) {
            self.stream.read_exact(answers)?;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: &str) -> Result<TcpStream> {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(format!("127.0.0.1:{port}")) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > give_up => bail!("no answer: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
