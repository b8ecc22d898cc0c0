//! The demo as people run it.

mod common;

use common::{eventually, run, stderr, stdout, swarm};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

/// Processes of this user whose command line has `text` in it.
fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn once_does_every_step_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    // Without a PATH there is no real server: the built-in one is shown.
    let output = swarm()
        .args(["demo", "--once", "--mcp", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("TMPDIR", folder.path())
        .env("PATH", "/nonexistent")
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let shown = stdout(&output);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 7, "{shown}");
    assert!(lines[0].starts_with("  √ 3 nodes up in "), "{shown}");
    for (line, start) in lines[1..].iter().zip([
        "  1  connected      session ",
        "  2  tools/list     ",
        "  3  tools/call     example_echo -> hello",
        "  4  killed n",
        "  5  tools/call     same session, through n",
        "  6  stream         resumed, 0 events lost, 0 repeated",
    ]) {
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    assert_eq!(processes_with(&folder.path().to_string_lossy()), Vec::<String>::new());
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let output = run(&["demo", "--once", "--mcp", &addr, "--admin", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--mcp"), "{}", stderr(&output));
}

/// A demo that stays up; killed when dropped.
struct Demo {
    child: Child,
    console: String,
}

impl Demo {
    fn start(folder: &Path) -> Demo {
        let child = swarm()
            .args(["demo", "--mcp", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .env("TMPDIR", folder)
            .env("PATH", "/nonexistent")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut demo = Demo { child, console: String::new() };
        demo.console = demo.invitation();
        demo
    }

    /// Reads to the last line of the invitation and answers the console's URL.
    fn invitation(&mut self) -> String {
        let stdout = BufReader::new(self.child.stdout.take().expect("stdout"));
        let mut seen = String::new();
        for line in stdout.lines().map_while(Result::ok) {
            seen.push_str(&line);
            seen.push('\n');
            if line.trim_start().starts_with("claude mcp add") {
                let (_, console) = seen.split_once("Console   ").expect("a console");
                return console.chars().take_while(|c| !c.is_whitespace()).collect();
            }
        }
        panic!("the demo ended: {seen}");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn it_is_controlled_and_its_nodes_die_with_it_however_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::start(folder.path());
    let console = demo.console.clone();
    let control = |verb: &str, node: &str| {
        let mut command = swarm();
        command.args(["demo", verb, node]).env("TMPDIR", folder.path());
        command.output().expect("runs")
    };
    let alive = |name: &str| {
        let mut command = swarm();
        command.args(["status", "-o", "json", "--endpoint", &console]);
        let status: serde_json::Value =
            serde_json::from_slice(&command.output().expect("runs").stdout).ok()?;
        let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == name)?.clone();
        Some(node["state"] == "alive")
    };
    let dead = ["n1", "n2", "n3"].into_iter().find(|name| alive(name) == Some(false));
    let dead = dead.expect("the demo killed one");
    let started = control("start", dead);
    assert!(started.status.success(), "{}", stderr(&started));
    eventually("the node is back", || (alive(dead) == Some(true)).then_some(()));
    assert_eq!(control("start", dead).status.code(), Some(1), "it runs already");
    assert_eq!(control("kill", "n9").status.code(), Some(3));
    assert!(control("kill", dead).status.success());
    eventually("the others see it", || (alive(dead) == Some(false)).then_some(()));

    let call = ["call", "example_echo", "text=through the balancer", "--endpoint", &console];
    let called = swarm().args(call).output().expect("runs");
    assert_eq!(stdout(&called), "through the balancer\n", "{}", stderr(&called));

    demo.kill();
    let path = folder.path().to_string_lossy().into_owned();
    eventually("no node is left", || processes_with(&path).is_empty().then_some(()));
}
