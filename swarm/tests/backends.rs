//! The edge's back against the example server as a real process, over both transports.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use kit::{host::Context, test::eventually};
use proto::registry::{BackendSpec, HttpTransport, StdioTransport, backend_spec::Transport};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use transport_edge::{
    backend::{
        Backend, BackendError, Backends, BackendsConfig, CallMeta, Core, Exchange, FromBackend, Peer, Said,
        Unsolicited, Upstream,
    },
    core::{
        catalog::List,
        jsonrpc::{Kind, scan},
    },
};

const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
const LONG: Duration = Duration::from_secs(20);

struct Edge {
    backends: Backends,
    definitions: watch::Sender<Arc<BTreeMap<String, BackendSpec>>>,
    _ctx: Context,
}

fn edge_with(config: BackendsConfig, specs: Vec<(&str, BackendSpec)>) -> Result<Edge> {
    let ctx = Context::for_test("edge");
    let specs = specs.into_iter().map(|(name, spec)| (name.to_owned(), spec)).collect();
    let (definitions, receiver) = watch::channel(Arc::new(specs));
    let backends = Backends::follow(config, receiver, &ctx)?;
    Ok(Edge { backends, definitions, _ctx: ctx })
}

fn edge(specs: Vec<(&str, BackendSpec)>) -> Result<Edge> {
    edge_with(config(), specs)
}

fn config() -> BackendsConfig {
    BackendsConfig { exec: PathBuf::from(SWARM), ..BackendsConfig::default() }
}

fn stdio(command: &str, args: &[&str]) -> BackendSpec {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let stdio = StdioTransport { command: command.into(), args, ..Default::default() };
    BackendSpec { transport: Some(Transport::Stdio(stdio)), ..Default::default() }
}

fn example() -> BackendSpec {
    stdio(SWARM, &["example-server"])
}

fn http(url: &str) -> BackendSpec {
    let http = HttpTransport { url: url.into(), ..Default::default() };
    BackendSpec { transport: Some(Transport::Http(http)), ..Default::default() }
}

/// The example server on HTTP; ends with its handle.
struct Remote {
    child: Child,
    url: String,
}

impl Remote {
    fn start(addr: &str) -> Result<Remote> {
        let mut command = Command::new(SWARM);
        command.args(["example-server", "--http", addr]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("ready ").context("not ready")?.to_owned();
        Ok(Remote { child, url })
    }

    fn addr(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches("/mcp")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Edge {
    async fn ready(&self, name: &str) -> Result<Arc<Backend>> {
        ensure!(self.backends.settled(LONG).await, "not settled");
        let found = eventually("the backend is ready", LONG, || async {
            let view = self.backends.views().into_iter().find(|view| view.name == name)?;
            (view.state == "ready").then(|| self.backends.get(name)).flatten()
        });
        Ok(found.await)
    }

    fn reason(&self, name: &str) -> String {
        let view = self.backends.views().into_iter().find(|view| view.name == name);
        view.filter(|view| view.state == "failing").map(|view| view.reason).unwrap_or_default()
    }

    async fn failing(&self, name: &str) -> String {
        eventually("the backend fails with a reason", LONG, || async {
            Some(self.reason(name)).filter(|reason| !reason.is_empty())
        })
        .await
    }
}

fn peer(session: Option<&str>) -> (Peer, mpsc::Receiver<Unsolicited>) {
    let (events, inbox) = mpsc::channel(256);
    let peer = Peer {
        session: session.map(str::to_owned),
        protocol_version: "2025-06-18".into(),
        client_info: r#"{"name":"test","version":"1"}"#.into(),
        capabilities: r#"{"elicitation":{},"sampling":{}}"#.into(),
        resume: None,
        events,
    };
    (peer, inbox)
}

async fn send(upstream: &Upstream, message: Value, within: Duration) -> Result<Exchange, BackendError> {
    let raw = Bytes::from(message.to_string());
    let envelope = scan(&raw).expect("a message of ours");
    let deadline = (tokio::time::Instant::now() + within).into_std();
    let meta = CallMeta { deadline, headers: Vec::new() };
    upstream.request(Core(0), raw, &envelope, Default::default(), meta).await
}

fn tool(id: Value, name: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": {"progressToken": "my token"}}})
}

/// Everything up to the answer.
async fn finish(exchange: &mut Exchange) -> Result<(Vec<Value>, Value), BackendError> {
    let mut before = Vec::new();
    while let Some(item) = exchange.next().await {
        match item? {
            FromBackend::Response { raw, .. } => {
                return Ok((before, serde_json::from_slice(&raw).expect("json")));
            }
            FromBackend::Notification { raw } | FromBackend::Request { raw, .. } => {
                before.push(serde_json::from_slice(&raw).expect("json"));
            }
        }
    }
    panic!("an exchange ended without an answer")
}

async fn call(upstream: &Upstream, name: &str, arguments: Value) -> Result<String, BackendError> {
    let mut exchange = send(upstream, tool(json!("an id"), name, arguments), LONG).await?;
    let (_, answer) = finish(&mut exchange).await?;
    assert_eq!(answer["id"], "an id");
    let text = &answer["result"]["content"][0]["text"];
    Ok(text.as_str().map_or_else(|| answer.to_string(), str::to_owned))
}

#[tokio::test]
async fn a_stdio_backend_is_learnt_and_each_session_has_its_own_process() -> Result<()> {
    let edge = edge(vec![("local", example())])?;
    let backend = edge.ready("local").await?;
    let catalog = edge.backends.catalog();
    assert!(catalog.tool(None, "local_echo").is_some_and(|target| target.hints.repeatable()));
    assert!(catalog.tool(None, "local_crash").is_some_and(|target| !target.hints.repeatable()));
    assert!(catalog.count(List::Tools) > 10 && catalog.count(List::Templates) == 1);
    assert_eq!(catalog.resource(None, "note://other").as_deref(), Some("local"));

    let (one, _one) = peer(Some("one"));
    let (two, _two) = peer(Some("two"));
    let (shared, _shared) = peer(None);
    let (one, two, shared) =
        (backend.open(one).await?, backend.open(two).await?, backend.open(shared).await?);
    assert_eq!(call(&one, "echo", json!({"text": "hällo\n\u{1f600}"})).await?, "hällo\n\u{1f600}");
    let mut pids = vec![
        call(&one, "pid", json!({})).await?,
        call(&two, "pid", json!({})).await?,
        call(&shared, "pid", json!({})).await?,
    ];
    let own = pids[0].clone();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 3);

    // The last clone of an upstream takes its process with it.
    drop(one);
    eventually("the session's process is gone", LONG, || async {
        (!std::path::Path::new(&format!("/proc/{own}")).exists()).then_some(())
    })
    .await;
    assert_eq!(call(&two, "echo", json!({"text": "still here"})).await?, "still here");
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_same_ids_and_tokens_of_many_clients_do_not_meet() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("local", example()), ("remote", http(&remote.url))])?;
    for name in ["local", "remote"] {
        let backend = edge.ready(name).await?;
        let (shared, _inbox) = peer(None);
        let upstream = backend.open(shared).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..1000u32 {
            let upstream = upstream.clone();
            tasks.spawn(async move {
                let text = format!("client {client}");
                let answer = call(&upstream, "echo", json!({"text": text})).await;
                answer.map(|answer| answer == text)
            });
        }
        while let Some(done) = tasks.join_next().await {
            ensure!(done??, "an answer went to another client of {name}");
        }
    }
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn progress_comes_under_the_clients_token_over_both_transports() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("local", example()), ("remote", http(&remote.url))])?;
    for name in ["local", "remote"] {
        for session in [Some("s"), None] {
            let (peer, _inbox) = peer(session);
            let upstream = edge.ready(name).await?.open(peer).await?;
            let mut exchange = send(&upstream, tool(json!(7), "sleep", json!({"ms": 50})), LONG).await?;
            let (before, answer) = finish(&mut exchange).await?;
            assert_eq!(answer["id"], 7, "{name} {session:?}");
            assert_eq!(before.len(), 9, "{name} {session:?} {before:?}");
            assert!(before.iter().all(|message| message["params"]["progressToken"] == "my token"));
        }
    }
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_cancel_reaches_the_backend() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("local", example()), ("remote", http(&remote.url))])?;
    for name in ["local", "remote"] {
        let (peer, _inbox) = peer(Some("s"));
        let upstream = edge.ready(name).await?.open(peer).await?;
        let mut hanging = send(&upstream, tool(json!(1), "hang", json!({})), LONG).await?;
        let begun = async {
            eventually("the call hangs", LONG, || async {
                (call(&upstream, "running", json!({})).await.ok()? == "2").then_some(())
            })
            .await;
        };
        tokio::select! {
            _ = hanging.next() => bail!("hang answered"),
            () = begun => {}
        }
        let since = tokio::time::Instant::now();
        drop(hanging);
        eventually("the backend stopped working", LONG, || async {
            (call(&upstream, "running", json!({})).await.ok()? == "1").then_some(())
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(1), "{name} {:?}", since.elapsed());

        let mut late = send(&upstream, tool(json!(1), "hang", json!({})), Duration::from_millis(100)).await?;
        assert_eq!(late.next().await.and_then(Result::err), Some(BackendError::Timeout));
        assert!(late.next().await.is_none());
        eventually("a timed-out call is cancelled too", LONG, || async {
            (call(&upstream, "running", json!({})).await.ok()? == "1").then_some(())
        })
        .await;
    }
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_crash_and_a_flood_cost_one_process_and_say_why() -> Result<()> {
    let edge = edge(vec![("local", example())])?;
    let backend = edge.ready("local").await?;
    let (calm, _calm) = peer(Some("calm"));
    let calm = backend.open(calm).await?;
    for (name, arguments, why) in [
        ("crash", json!({"code": 3}), "exited with code 3"),
        ("flood", json!({"kind": "line"}), "4194304 bytes"),
        ("flood", json!({"kind": "noise"}), "flooded"),
    ] {
        let (wild, mut inbox) = peer(Some("wild"));
        let wild = backend.open(wild).await?;
        let error = call(&wild, name, arguments).await.err().context("it answered")?;
        assert!(matches!(&error, BackendError::Gone { reason } if reason.contains(why)), "{name}: {error}");
        assert!(matches!(inbox.recv().await, Some(Unsolicited::Gone { .. })));
        assert!(call(&wild, "echo", json!({"text": "x"})).await.is_err_and(|error| error.unsent()));
        assert_eq!(call(&calm, "echo", json!({"text": "calm"})).await?, "calm");
    }
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_shared_process_starts_again_after_a_crash() -> Result<()> {
    let edge = edge(vec![("local", example())])?;
    let backend = edge.ready("local").await?;
    let (shared, _inbox) = peer(None);
    let upstream = backend.open(shared).await?;
    assert!(call(&upstream, "crash", json!({})).await.is_err());
    let again = eventually("it is open again", LONG, || async {
        let (shared, _inbox) = peer(None);
        let upstream = backend.open(shared).await.ok()?;
        call(&upstream, "echo", json!({"text": "back"})).await.ok()
    });
    assert_eq!(again.await, "back");
    assert!(edge.backends.views().iter().all(|view| view.restarts >= 1));
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_others_are_not_disturbed() -> Result<()> {
    let silent = stdio("sleep", &["1000"]);
    let chatty = stdio("sh", &["-c", "echo this is no json; echo oops, no database >&2; exit 5"]);
    let injected = stdio("true; touch /tmp/injected", &[]);
    let config = BackendsConfig { probe_timeout_ms: 300, start_timeout_ms: 300, ..config() };
    let edge = edge_with(
        config,
        vec![
            ("good", example()),
            ("missing", stdio("/no/such/program", &[])),
            ("silent", silent),
            ("chatty", chatty),
            ("injected", injected),
            ("unreachable", http("http://127.0.0.1:9/mcp")),
            ("tls", http("https://127.0.0.1/mcp")),
        ],
    )?;
    let good = edge.ready("good").await;
    assert!(edge.failing("missing").await.contains("/no/such/program"), "{}", edge.reason("missing"));
    assert!(edge.failing("chatty").await.contains("no database"), "{}", edge.reason("chatty"));
    assert!(edge.failing("injected").await.contains("true; touch /tmp/injected"));
    assert!(edge.failing("unreachable").await.contains("127.0.0.1:9"));
    assert!(edge.failing("tls").await.contains("https"));
    assert!(!edge.failing("silent").await.is_empty());
    assert!(!std::path::Path::new("/tmp/injected").exists());
    let (shared, _inbox) = peer(None);
    let error = edge.backends.get("missing").context("gone")?.open(shared).await.err();
    assert!(matches!(error, Some(BackendError::NotReady { reason, .. }) if reason.contains("missing")));
    let (own, _inbox) = peer(Some("s"));
    let upstream = good?.open(own).await?;
    assert_eq!(call(&upstream, "echo", json!({"text": "fine"})).await?, "fine");
    assert_eq!(edge.backends.catalog().troubles(None).len(), 6);
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn processes_are_capped_and_idle_ones_make_room() -> Result<()> {
    let config = BackendsConfig { max_processes: 2, idle_ms: 200, ping_interval_ms: 50, ..config() };
    let edge = edge_with(config, vec![("local", example())])?;
    let backend = edge.ready("local").await?;
    let (first, mut first_inbox) = peer(Some("first"));
    let first = backend.open(first).await?;
    let (second, _inbox) = peer(Some("second"));
    let full = backend.open(second.clone()).await.err();
    assert!(matches!(full, Some(BackendError::NotReady { reason, .. }) if reason.contains("max_processes")));

    assert!(
        matches!(first_inbox.recv().await, Some(Unsolicited::Gone { reason }) if reason.contains("idle"))
    );
    eventually("there is room again", LONG, || async { backend.open(second.clone()).await.ok() }).await;
    drop(first);
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_question_of_the_backend_comes_with_its_request_and_the_answer_goes_back() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("local", example()), ("remote", http(&remote.url))])?;
    for name in ["local", "remote"] {
        let (peer, _inbox) = peer(Some("s"));
        let upstream = edge.ready(name).await?.open(peer).await?;
        let mut exchange =
            send(&upstream, tool(json!(1), "elicit", json!({"message": "which?"})), LONG).await?;
        let Some(Ok(FromBackend::Request { raw, id })) = exchange.next().await else {
            bail!("{name} did not ask")
        };
        let question: Value = serde_json::from_slice(&raw)?;
        assert_eq!(question["method"], "elicitation/create");
        let answer = Bytes::from(
            r#"{"jsonrpc":"2.0","id":"our own","result":{"action":"accept","content":{"answer":"lemon"}}}"#,
        );
        upstream.answer(&id, answer.clone(), &scan(&answer)?).await?;
        let (_, result) = finish(&mut exchange).await?;
        assert!(result.to_string().contains("lemon"), "{name} {result}");
    }
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn modern_requests_pass_untouched_and_are_asked_by_results() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("local", example()), ("remote", http(&remote.url))])?;
    for name in ["local", "remote"] {
        let (peer, _inbox) = peer(None);
        let upstream = edge.ready(name).await?.open(peer).await?;
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}});
        let ask = |id: u64, extra: Value| {
            let mut message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": {"name": "elicit", "arguments": {"message": "which?"}, "_meta": meta}});
            for (key, value) in extra.as_object().into_iter().flatten() {
                message["params"][key] = value.clone();
            }
            message
        };
        let mut first = send(&upstream, ask(1, json!({})), LONG).await?;
        let (_, needed) = finish(&mut first).await?;
        assert_eq!(needed["result"]["resultType"], "input_required", "{name} {needed}");
        let extra = json!({"requestState": needed["result"]["requestState"],
            "inputResponses": {"question": {"action": "accept", "content": {"answer": "lemon"}}}});
        let mut second = send(&upstream, ask(2, extra), LONG).await?;
        let (_, done) = finish(&mut second).await?;
        assert!(done["id"] == 2 && done.to_string().contains("lemon"), "{name} {done}");
    }
    edge.backends.stop().await;
    Ok(())
}

fn number_of(event: Option<Unsolicited>) -> Result<(u64, Option<String>)> {
    let Some(Unsolicited::Message(said)) = event else { bail!("{event:?}") };
    let Said { raw, envelope, last_event_id } = *said;
    ensure!(envelope.kind == Kind::Notification);
    let message: Value = serde_json::from_slice(&raw)?;
    Ok((message["params"]["data"]["n"].as_u64().context("no number")?, last_event_id))
}

/// Calls a tool until something unasked is heard.
async fn heard_after(
    upstream: &Upstream,
    inbox: &mut mpsc::Receiver<Unsolicited>,
    name: &str,
    arguments: Value,
) -> Result<Unsolicited> {
    for _ in 0..100 {
        call(upstream, name, arguments.clone()).await?;
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(200), inbox.recv()).await {
            return event.context("the upstream ended");
        }
    }
    bail!("nothing was heard")
}

#[tokio::test]
async fn what_is_said_unasked_comes_in_order_and_goes_on_at_another_edge() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let first_edge = edge(vec![("remote", http(&remote.url))])?;
    let (own, mut inbox) = peer(Some("s"));
    let upstream = first_edge.ready("remote").await?.open(own).await?;
    // The stream may open after the call, and starts with what comes then.
    heard_after(&upstream, &mut inbox, "emit", json!({"count": 1, "from": 1})).await?;
    call(&upstream, "emit", json!({"count": 50, "from": 100})).await?;
    for n in 100..150 {
        let (number, id) = number_of(inbox.recv().await)?;
        assert_eq!(number, n);
        assert!(id.is_some());
    }
    // The edge goes; the backend's session stays and says more.
    let record = eventually("the last event is in the record", LONG, || async {
        let record = upstream.record();
        (!record.last_event_id.is_empty()).then_some(record)
    })
    .await;
    upstream.keep();
    drop(upstream);
    let second_edge = edge(vec![("remote", http(&remote.url))])?;
    let (own, mut inbox) = peer(Some("s"));
    let upstream = second_edge.ready("remote").await?.open(Peer { resume: Some(record), ..own }).await?;
    call(&upstream, "emit", json!({"count": 5, "from": 150})).await?;
    for n in 150..155 {
        assert_eq!(number_of(inbox.recv().await)?.0, n);
    }
    first_edge.backends.stop().await;
    second_edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_session_that_the_backend_forgot_is_opened_again() -> Result<()> {
    let remote = Remote::start("127.0.0.1:0")?;
    let edge = edge(vec![("remote", http(&remote.url))])?;
    let (own, mut inbox) = peer(Some("s"));
    let upstream = edge.ready("remote").await?.open(own).await?;
    assert_eq!(call(&upstream, "echo", json!({"text": "before"})).await?, "before");
    let subscribe =
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "note://x"}});
    finish(&mut send(&upstream, subscribe, LONG).await?).await?;
    let before = upstream.record();

    let addr = remote.addr().to_owned();
    drop(remote);
    let _again = Remote::start(&addr)?;
    // A call that went out on a connection of the dead process has a broken answer, and is not repeated.
    let after = eventually("a call reaches the new process", LONG, || async {
        call(&upstream, "echo", json!({"text": "after"})).await.ok()
    });
    assert_eq!(after.await, "after");
    assert_ne!(upstream.record().session_id, before.session_id);
    assert!(matches!(inbox.recv().await, Some(Unsolicited::Reopened)));
    // The subscription was told again.
    let updated = heard_after(&upstream, &mut inbox, "set_note", json!({"id": "x", "text": "y"})).await?;
    assert!(matches!(updated, Unsolicited::Message { .. }));
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn definitions_come_and_go() -> Result<()> {
    let edge = edge(vec![("one", example())])?;
    edge.ready("one").await?;
    let revision = *edge.backends.watch().borrow();
    edge.definitions.send_replace(Arc::new(BTreeMap::from([("two".to_owned(), example())])));
    eventually("the other one is there", LONG, || async {
        let catalog = edge.backends.catalog();
        (catalog.tool(None, "two_echo").is_some() && catalog.tool(None, "one_echo").is_none()).then_some(())
    })
    .await;
    assert!(edge.backends.get("one").is_none());
    assert!(*edge.backends.watch().borrow() > revision);
    edge.backends.stop().await;
    Ok(())
}

#[tokio::test]
async fn real_servers_are_understood() -> Result<()> {
    let (Some(time), Some(git)) = (kit::test::tool("mcp-server-time"), kit::test::tool("mcp-server-git"))
    else {
        return Ok(());
    };
    let (time, git) = (time.display().to_string(), git.display().to_string());
    let edge = edge(vec![("time", stdio(&time, &[])), ("git", stdio(&git, &[]))])?;
    for (name, exposed) in [("time", "time_get_current_time"), ("git", "git_git_status")] {
        edge.ready(name).await?;
        assert!(edge.backends.catalog().tool(None, exposed).is_some(), "{name}");
    }
    for session in [None, Some("s")] {
        let (peer, _inbox) = peer(session);
        let upstream = edge.ready("time").await?.open(peer).await?;
        let now = call(&upstream, "get_current_time", json!({"timezone": "UTC"})).await?;
        assert!(now.contains("UTC"), "{now}");
    }
    edge.backends.stop().await;
    Ok(())
}

fn processes_with(mark: &str) -> usize {
    let commands = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = commands.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(mark)).count()
}

/// The parent is killed without a chance to say anything; the server, its child and even one
/// that left the process group end.
#[tokio::test]
async fn nothing_outlives_a_killed_parent() -> Result<()> {
    // Who adopts whom when is a race: several at once, stubborn leaders and obedient ones.
    let rounds =
        (0..8).map(|round| kill_a_parent(format!("98{}0{round}", std::process::id()), round % 2 == 0));
    futures::future::try_join_all(rounds).await?;
    Ok(())
}

async fn kill_a_parent(mark: String, stubborn: bool) -> Result<()> {
    let trap = if stubborn { "trap '' TERM;" } else { "" };
    let server = format!("sleep {mark}.1 & setsid sleep {mark}.2 & {trap} sleep {mark}.3; sleep {mark}.4");
    let parent = format!("'{SWARM}' backend-exec --parent $$ -- sh -c \"$SERVER\" & wait");
    let mut parent =
        Command::new("sh").args(["-c", &parent]).env("SERVER", server).stdin(Stdio::null()).spawn()?;
    let running = eventually("all three run", LONG, || async {
        let found =
            ["1", "2", "3"].iter().filter(|n| processes_with(&format!("sleep {mark}.{n}")) > 0).count();
        (found == 3).then_some(())
    });
    running.await;
    parent.kill()?;
    parent.wait()?;
    eventually("nothing is left", Duration::from_secs(5), || async {
        (processes_with(&mark) == 0).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_the_backends() -> Result<()> {
    let mark = format!("97{}", std::process::id());
    let spec = stdio(SWARM, &["example-server", "--mark", &mark]);
    let edge = edge(vec![("local", spec)])?;
    let (own, _inbox) = peer(Some("s"));
    let upstream = edge.ready("local").await?.open(own).await?;
    assert!(processes_with(&mark) >= 2);
    drop(edge);
    drop(upstream);
    eventually("nothing is left", Duration::from_secs(5), || async {
        (processes_with(&mark) == 0).then_some(())
    })
    .await;
    Ok(())
}
