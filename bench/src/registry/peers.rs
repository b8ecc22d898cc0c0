//! Peers that run from packages; one that is missing is named.

use super::{AREA, FEW, memory, names};
use crate::report::Row;
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const ETS: &str = include_str!("../../peers/ets.escript");
const PIPELINE: usize = 64;

/// Our lookups beside an ETS table's, both of 10K names and two readers.
pub(super) fn beside_ets(length: Duration) -> Option<Row> {
    let peer = match ets(length) {
        Ok(rate) => rate,
        Err(error) => {
            eprintln!("PEER MISSING: ETS (install erlang-base): {error:#}");
            return None;
        }
    };
    let few = names(FEW);
    let ours = memory::single(&memory::filled(&few), &few, 2, 0, length);
    let row = Row::new(AREA, "10K names, 2 readers", ours, "lookups/s").against("ETS", peer);
    Some(row.goal(">= 5x", ours >= 5.0 * peer))
}

fn ets(length: Duration) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("ets.escript");
    std::fs::write(&script, ETS)?;
    let arguments = [FEW.to_string(), "2".into(), length.as_millis().to_string()];
    let output = Command::new("escript").arg(&script).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("it printed {text:?} {:?}", String::from_utf8_lossy(&output.stderr)))
}

/// redis GET and SET per second, one connection, 64 pipelined.
pub(super) fn redis(names: &[String], length: Duration) -> Option<(f64, f64)> {
    match redis_rates(names, length) {
        Ok(rates) => Some(rates),
        Err(error) => {
            eprintln!("PEER MISSING: redis (install redis-server): {error:#}");
            None
        }
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis_rates(names: &[String], length: Duration) -> Result<(f64, f64)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let _server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let mut stream = connect(port)?;
    stream.set_nodelay(true)?;
    let mut random = memory::Random(1);
    for batch in names.chunks(PIPELINE) {
        let sets: Vec<&str> = batch.iter().map(String::as_str).collect();
        exchange(&mut stream, &sets, set, 5)?;
    }
    let gets = rate(length, || {
        let batch: Vec<&str> = (0..PIPELINE).map(|_| random.pick(names)).collect();
        // "$16\r\n", the value, "\r\n"
        exchange(&mut stream, &batch, get, 23)
    })?;
    let sets = rate(length, || {
        let batch: Vec<&str> = (0..PIPELINE).map(|_| random.pick(names)).collect();
        exchange(&mut stream, &batch, set, 5)
    })?;
    Ok((gets, sets))
}

fn connect(port: u16) -> Result<TcpStream> {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > give_up => bail!("no answer: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn rate(length: Duration, mut exchange: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < length {
        exchange()?;
        count += PIPELINE;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn get(name: &str) -> String {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{name}\r\n", name.len())
}

fn set(name: &str) -> String {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n$16\r\n0123456789abcdef\r\n", name.len())
}

/// Every answer has the same length.
fn exchange(stream: &mut TcpStream, names: &[&str], of: fn(&str) -> String, answer: usize) -> Result<()> {
    let request: String = names.iter().map(|name| of(name)).collect();
    stream.write_all(request.as_bytes())?;
    let mut answers = vec![0; answer * names.len()];
    stream.read_exact(&mut answers)?;
    Ok(())
}
