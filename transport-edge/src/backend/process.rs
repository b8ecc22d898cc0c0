//! One stdio server: its pipes, its last words, and its end.

use super::spawner::{Recipe, Spawner};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Pid, Signal, kill_process};
use std::{collections::VecDeque, io, process::Child, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Lines of stderr that are kept for the reason of a failure, and their length.
const LAST_WORDS: usize = 8;
const LAST_WORD_BYTES: usize = 400;
/// Messages waiting for the server to read.
const WRITE_QUEUE: usize = 256;
/// After its stdin was closed, before TERM.
const POLITE: Duration = Duration::from_millis(500);
/// After TERM: the supervisor's own grace and reaping, and a bit.
const FIRM: Duration = Duration::from_millis(3500);

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    /// Of the supervisor.
    pub(crate) pid: u32,
    stop: CancellationToken,
    ended: CancellationToken,
    words: Arc<Mutex<VecDeque<String>>>,
    status: Arc<Mutex<Option<String>>>,
}

/// The message pipes of a running server.
pub(crate) struct Pipes {
    pub(crate) input: mpsc::Sender<Bytes>,
    pub(crate) output: Lines<ChildStdout>,
}

impl Process {
    /// Starts it; `max_message` limits one line of its output.
    pub(crate) async fn start(
        spawner: &Spawner,
        recipe: Recipe,
        max_message: usize,
        place: Place,
        runtime: &Handle,
    ) -> io::Result<(Self, Pipes)> {
        let mut child = spawner.spawn(recipe).await?;
        let pid = child.id();
        let missing = || io::Error::other("no pipe");
        let entered = runtime.enter();
        let stdin = ChildStdin::from_std(child.stdin.take().ok_or_else(missing)?)?;
        let stdout = ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?;
        let stderr = ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?;
        drop(entered);
        let process = Process {
            pid,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            words: Arc::default(),
            status: Arc::default(),
        };
        let (input, queue) = mpsc::channel(WRITE_QUEUE);
        runtime.spawn(write(stdin, queue, process.stop.clone()));
        runtime.spawn(listen(stderr, process.words.clone()));
        let ending = Ending {
            stop: process.stop.clone(),
            ended: process.ended.clone(),
            status: process.status.clone(),
            _place: place,
        };
        runtime.spawn(ending.run(child));
        Ok((process, Pipes { input, output: Lines::new(stdout, max_message) }))
    }

    /// Begins its end: stdin closed, then TERM, then KILL.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when it has been reaped.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// How it ended and what it said last, in words.
    pub(crate) fn epitaph(&self) -> String {
        let status = self.status.lock().clone().unwrap_or_else(|| "closed its output".into());
        match self.words.lock().back() {
            Some(last) => format!("{status}: {last}"),
            None => status,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>, stop: CancellationToken) {
    let work = async {
        while let Some(message) = queue.recv().await {
            if stdin.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Keeps the last lines of stderr. A line without end is cut, never kept whole.
async fn listen(stderr: ChildStderr, words: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let piece = (&mut reader).take(8192).read_until(b'\n', &mut line).await;
        if !matches!(piece, Ok(read) if read > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim().chars().take(LAST_WORD_BYTES).collect();
        if text.is_empty() {
            continue;
        }
        let mut words = words.lock();
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(text);
    }
}

/// A place among the processes of a backend, held until the process has been reaped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    count: Gauge,
}

impl Place {
    pub(crate) fn new(permit: OwnedSemaphorePermit, count: Gauge) -> Self {
        count.inc();
        Place { _permit: permit, count }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.dec();
    }
}

struct Ending {
    stop: CancellationToken,
    ended: CancellationToken,
    status: Arc<Mutex<Option<String>>>,
    _place: Place,
}

impl Ending {
    async fn run(self, mut child: Child) {
        let asked = tokio::select! {
            found = reaped(&mut child) => { *self.status.lock() = Some(found); false }
            () = self.stop.cancelled() => true,
        };
        if asked && timeout(POLITE, reaped(&mut child)).await.is_err() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            if timeout(FIRM, reaped(&mut child)).await.is_err() {
                let _ = child.kill();
                let _ = timeout(FIRM, reaped(&mut child)).await;
            }
        }
        self.ended.cancel();
    }
}

/// Polls, because the process was started outside of tokio: quickly at first, then slowly.
async fn reaped(child: &mut Child) -> String {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return words_of(status),
            Err(error) => return error.to_string(),
            Ok(None) => {}
        }
        let pause = if began.elapsed() < Duration::from_secs(5) { 20 } else { 250 };
        sleep(Duration::from_millis(pause)).await;
    }
}

/// The supervisor passes a signal on as 128 + n, as shells do.
fn words_of(status: std::process::ExitStatus) -> String {
    match status.code() {
        Some(127) => "command not found".into(),
        Some(126) => "command cannot be run".into(),
        Some(code @ 129..=192) => format!("killed by signal {}", code - 128),
        Some(code) => format!("exited with code {code}"),
        None => "its supervisor was killed".into(),
    }
}

/// A line that does not end within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndlessLine;

/// Lines of a pipe, each at most `limit` bytes. Holds no buffer while the pipe is quiet.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    searched: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Lines { reader, buffer: BytesMut::new(), searched: 0, limit }
    }

    /// The next line without its end; `None` at the end of the pipe. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EndlessLine> {
        loop {
            if let Some(line) = self.buffered()? {
                return Ok(Some(line));
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(4096);
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(read) if read > 0 => {}
                _ => return Ok(None),
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, EndlessLine> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unsearched) else {
            self.searched = self.buffer.len();
            return if self.searched > self.limit { Err(EndlessLine) } else { Ok(None) };
        };
        let end = self.searched + found;
        self.searched = 0;
        if end > self.limit {
            return Err(EndlessLine);
        }
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        Ok(Some(line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_an_endless_one_is_refused() {
        let mut lines = Lines::new(b"{}\n\n{\"a\":1}\ntail".as_slice(), 10);
        assert_eq!(lines.next().await, Ok(Some("{}".into())));
        assert_eq!(lines.next().await, Ok(Some("".into())));
        assert_eq!(lines.next().await, Ok(Some("{\"a\":1}".into())));
        assert_eq!(lines.next().await, Ok(None));
        let mut lines = Lines::new(b"01234567890123456789".as_slice(), 10);
        assert_eq!(lines.next().await, Err(EndlessLine));
    }
}
