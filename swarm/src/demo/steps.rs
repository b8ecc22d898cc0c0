//! The main job, done once by a real client through the load balancer, and what it took.

use super::{Front, balancer::Balancer, cluster::Cluster, servers::passing_server};
use crate::{
    api::{ImportReport, ImportRequest, Sessions, Status, Tools},
    client::{EventStream, Http, McpClient, McpError},
    error::{CliError, Failure},
    ops::Api,
    output::{count, to_stdout},
};
use kit::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One request of the client.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the session may take to go on after its node was killed.
const FAILOVER: Duration = Duration::from_secs(15);
/// How long backends may take to start.
const BACKENDS: Duration = Duration::from_secs(30);
/// How long an event may take to arrive.
const EVENT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// A backend that is registered and taken away, so that the session's stream has events.
const PASSING: &str = "passing";

/// Does all steps, printing each, and answers the node that was killed; an error names the step
/// that failed.
pub(super) async fn run(front: Front, cluster: &Cluster, balancer: &Balancer) -> Result<String, CliError> {
    let client = McpClient::new(Http::unpooled(), front.mcp_url(), REQUEST);
    let mut show = Show { cluster, balancer, client, clock: SystemClock };
    show.start().await.map_err(|reason| failed("start", reason))?;
    show.connect().await.map_err(|reason| failed("1 (connected)", reason))?;
    let tools = show.list().await.map_err(|reason| failed("2 (tools/list)", reason))?;
    let call = show.pick_call(&tools).map_err(|reason| failed("3 (tools/call)", reason))?;
    show.call(&call).await.map_err(|reason| failed("3 (tools/call)", reason))?;
    let (held, stream) = show.hold_and_kill().await.map_err(|reason| failed("4 (kill)", reason))?;
    let node = held.node.clone();
    show.call_again(&call, held).await.map_err(|reason| failed("5 (tools/call)", reason))?;
    show.resume(stream).await.map_err(|reason| failed("6 (stream)", reason))?;
    Ok(node)
}

fn failed(step: &str, reason: String) -> CliError {
    CliError::new(Failure::Failed, format!("step {step} failed: {reason}"))
}

struct Show<'a> {
    cluster: &'a Cluster,
    balancer: &'a Balancer,
    client: McpClient,
    clock: SystemClock,
}

/// A tool and its arguments.
struct Call {
    tool: String,
    arguments: Value,
}

/// What the client has read of its stream, and the events' numbers.
struct Read {
    last_id: String,
    numbers: Vec<u64>,
}

type Step<T> = Result<T, String>;

impl Show<'_> {
    async fn start(&mut self) -> Step<()> {
        let started = self.clock.now();
        self.cluster.start_all().await.map_err(|error| error.message)?;
        let took = self.clock.now() - started;
        let (status, tools) = self.settled().await?;
        let raft = status.raft.unwrap_or_default();
        let leader = raft.leader.unwrap_or_default();
        let balance = status.ring.map_or(0.0, |ring| ring.max_to_mean);
        let nodes = count(status.nodes.len(), "node");
        let backends = count(status.backends.len(), "backend");
        to_stdout(&format!(
            "  √ {nodes} up in {:.1} s ({leader} leader, term {})   √ ring balanced (max/mean \
             {balance:.2})   √ {backends}, {}",
            took.as_secs_f64(),
            raft.term,
            count(tools, "tool"),
        ));
        Ok(())
    }

    /// Waits until every backend answers on every edge, or one is known not to.
    async fn settled(&self) -> Step<(Status, usize)> {
        let give_up = self.clock.now() + BACKENDS;
        loop {
            let status: Status = self.api(0).await?.get("status").await.map_err(words)?;
            let ready = |b: &crate::api::Backend| b.edges.len() == 3 && b.state == "ready";
            if !status.backends.is_empty() && status.backends.iter().all(ready) {
                let tools: Tools = self.api(0).await?.get("tools").await.map_err(words)?;
                return Ok((status, tools.tools.len()));
            }
            if self.clock.now() > give_up {
                let sick = status.backends.iter().filter(|b| !ready(b));
                let sick: Vec<_> = sick.map(|b| format!("{} is {} {}", b.name, b.state, b.reason)).collect();
                return Err(format!("backends are not ready: {}", sick.join(", ")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The admin API of a living node.
    async fn api(&self, index: usize) -> Step<Api> {
        let living = self.cluster.living().await;
        let node = living.get(index).or(living.first()).ok_or("no node runs")?;
        Ok(Api::at(&node.admin, REQUEST))
    }

    async fn connect(&mut self) -> Step<()> {
        let started = self.clock.now();
        // The node is the one that took `initialize`: the session is anchored there.
        self.client.initialize().await.map_err(told)?;
        let took = self.clock.now() - started;
        let session = self.client.session().ok_or("the answer has no session id")?.to_owned();
        let short: String = session.chars().take(4).collect();
        let anchor = self.anchor().await?;
        line(1, "connected", &format!("session {short}... through {anchor}"), Some(took));
        Ok(())
    }

    /// The edge that holds the one session there is.
    async fn anchor(&self) -> Step<String> {
        let give_up = self.clock.now() + EVENT;
        loop {
            let sessions: Sessions = self.api(0).await?.get("sessions").await.map_err(words)?;
            if let Some(session) = sessions.sessions.first() {
                return Ok(session.anchor.clone());
            }
            if self.clock.now() > give_up {
                return Err("no edge knows the session".to_owned());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list(&mut self) -> Step<Vec<Value>> {
        let started = self.clock.now();
        let tools = self.client.tools().await.map_err(told)?;
        let took = self.clock.now() - started;
        let of = self.cluster.servers().names().join(", ");
        line(2, "tools/list", &format!("{} of {of}", count(tools.len(), "tool")), Some(took));
        Ok(tools)
    }

    /// A call that changes nothing: a known one, or the first tool that needs no arguments.
    fn pick_call(&self, tools: &[Value]) -> Step<Call> {
        let named = |name: &str| tools.iter().any(|tool| tool["name"] == name);
        if let Some((tool, arguments)) = self.cluster.servers().known_call().filter(|c| named(c.0)) {
            return Ok(Call { tool: tool.to_owned(), arguments });
        }
        let safe = |tool: &&Value| {
            let needs = tool["inputSchema"]["required"].as_array().map_or(0, Vec::len);
            needs == 0 && tool["annotations"]["readOnlyHint"] == true
        };
        let tool = tools.iter().find(safe).and_then(|tool| tool["name"].as_str());
        let tool = tool.ok_or("no tool is marked read-only and needs no arguments")?;
        Ok(Call { tool: tool.to_owned(), arguments: json!({}) })
    }

    async fn call(&mut self, call: &Call) -> Step<()> {
        let started = self.clock.now();
        let answer = self.call_once(call).await.map_err(told)?;
        let took = self.clock.now() - started;
        line(3, "tools/call", &format!("{} -> {}", call.tool, answer?), Some(took));
        Ok(())
    }

    /// The inner error is the tool's own.
    async fn call_once(&mut self, call: &Call) -> Result<Step<String>, McpError> {
        let params = json!({ "name": call.tool, "arguments": call.arguments });
        let result = self.client.request("tools/call", params).await?;
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        if result["isError"] == true {
            return Ok(Err(format!("{} failed: {text}", call.tool)));
        }
        Ok(Ok(gist(text)))
    }

    /// Opens the stream, lets an event come over it, and kills the node that holds it.
    async fn hold_and_kill(&mut self) -> Step<(Killed, Read)> {
        let mut stream = self.client.listen(None).await.map_err(told)?;
        let mut read = Read { last_id: String::new(), numbers: Vec::new() };
        self.register(true).await?;
        read.until_an_event(&mut stream, self.clock.now() + EVENT, &self.clock).await?;
        let node = self.anchor().await?;
        self.cluster.kill(&node).await.map_err(|error| error.message)?;
        let at = self.clock.now();
        line(4, &format!("killed {node}, which held the session and the stream"), "", None);
        Ok((Killed { node, at }, read))
    }

    /// Each change of the catalog is an event of the session's stream.
    async fn register(&self, there: bool) -> Step<()> {
        let api = self.api(0).await?;
        if there {
            let body = ImportRequest { servers: vec![passing_server(PASSING)] };
            let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
            let mut report: ImportReport = api.post("registry/import", body.into()).await.map_err(words)?;
            return report.rejected.remove(PASSING).map_or(Ok(()), Err);
        }
        let removed: Result<Value, _> = api.delete(&format!("registry/{PASSING}")).await;
        removed.map(drop).map_err(words)
    }

    async fn call_again(&mut self, call: &Call, killed: Killed) -> Step<()> {
        let give_up = killed.at + FAILOVER;
        let answer = loop {
            match self.call_once(call).await {
                Ok(answer) => break answer,
                Err(error) if self.clock.now() > give_up || !passing(&error) => {
                    return Err(told(error));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        answer?;
        let took = self.clock.now() - killed.at;
        let through = self.client.last_local.and_then(|local| self.balancer.node_of(local));
        let through = through.unwrap_or_else(|| "another node".to_owned());
        line(5, "tools/call", &format!("same session, through {through}"), Some(took));
        Ok(())
    }

    /// Goes on after the last event that was read: what follows must follow without a gap.
    async fn resume(&mut self, mut read: Read) -> Step<()> {
        let give_up = self.clock.now() + FAILOVER;
        let mut stream = self.listen_again(&read, give_up).await?;
        self.register(false).await?;
        while let Err(reason) = read.until_an_event(&mut stream, give_up, &self.clock).await {
            if self.clock.now() > give_up {
                return Err(reason);
            }
            stream = self.listen_again(&read, give_up).await?;
        }
        let (lost, repeated) = (read.lost(), read.repeated());
        if lost + repeated > 0 {
            return Err(format!("{lost} events lost, {repeated} repeated: {:?}", read.numbers));
        }
        line(6, "stream", "resumed, 0 events lost, 0 repeated", None);
        // The demo goes on without this client.
        let _ = self.client.close().await;
        Ok(())
    }

    async fn listen_again(&mut self, read: &Read, give_up: Instant) -> Step<EventStream> {
        loop {
            match self.client.listen(Some(&read.last_id)).await {
                Ok(stream) => return Ok(stream),
                Err(error) if self.clock.now() > give_up || !passing(&error) => {
                    return Err(told(error));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

struct Killed {
    node: String,
    at: Instant,
}

impl Read {
    /// Reads on until one more event with a message came.
    async fn until_an_event(
        &mut self,
        stream: &mut EventStream,
        give_up: Instant,
        clock: &SystemClock,
    ) -> Step<()> {
        loop {
            let left = give_up.saturating_duration_since(clock.now());
            let next = tokio::time::timeout(left, stream.next()).await;
            let event = match next {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Err("the stream ended".to_owned()),
                Ok(Err(error)) => return Err(told(error)),
                Err(_) => return Err("no event came".to_owned()),
            };
            let Some(id) = event.id else { continue };
            if event.data.is_empty() {
                // A priming event names the place to resume from, before anything was sent.
                self.last_id = id;
                continue;
            }
            self.numbers.push(number(&id)?);
            self.last_id = id;
            return Ok(());
        }
    }

    fn lost(&self) -> u64 {
        let gaps = self.numbers.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1));
        gaps.sum()
    }

    fn repeated(&self) -> u64 {
        self.numbers.windows(2).filter(|pair| pair[1] <= pair[0]).count() as u64
    }
}

/// Event ids are `<stream>.<number>`, numbered without gaps.
fn number(id: &str) -> Step<u64> {
    let number = id.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| format!("`{id}` is no event id of swarm"))
}

/// Whether trying again may help: the node is gone and the next one does not know it yet.
fn passing(error: &McpError) -> bool {
    match error {
        McpError::Http(_) => true,
        McpError::Status { status, .. } => status.is_server_error(),
        McpError::Rpc { data, .. } => data.as_ref().is_some_and(|data| data["retryable"] == true),
        McpError::Protocol(_) => true,
    }
}

fn told(error: McpError) -> String {
    error.to_string()
}

fn words(error: CliError) -> String {
    error.message
}

/// The most telling part of a tool's text: the time in it, else its first line.
fn gist(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let telling = value["datetime"].as_str().or_else(|| text.lines().next());
    telling.unwrap_or_default().chars().take(40).collect()
}

fn line(number: u32, what: &str, text: &str, took: Option<Duration>) {
    let line = match took {
        Some(took) => {
            format!("  {number}  {what:<15}{text:<50}{:>6} ms", took.as_millis())
        }
        None => format!("  {number}  {what:<15}{text}"),
    };
    to_stdout(line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(numbers: &[u64]) -> Read {
        Read { last_id: String::new(), numbers: numbers.to_vec() }
    }

    #[test]
    fn gaps_are_lost_events_and_steps_back_are_repeated_ones() {
        assert_eq!((read(&[1, 2, 3]).lost(), read(&[1, 2, 3]).repeated()), (0, 0));
        assert_eq!((read(&[1, 4]).lost(), read(&[1, 4]).repeated()), (2, 0));
        assert_eq!((read(&[1, 2, 2]).lost(), read(&[1, 2, 2]).repeated()), (0, 1));
        assert_eq!(number("g.17"), Ok(17));
        assert!(number("g").is_err());
    }

    #[test]
    fn the_gist_of_a_time_is_the_time() {
        let text = "{\"timezone\": \"UTC\", \"datetime\": \"2026-11-23T10:41:08+00:00\"}";
        assert_eq!(gist(text), "2026-11-23T10:41:08+00:00");
        assert_eq!(gist("hello\nworld"), "hello");
    }
}
