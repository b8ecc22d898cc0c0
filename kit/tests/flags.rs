//! Flags as a node, its operator and its disk see them.

#![allow(clippy::unwrap_used)]

use kit::{
    Host, Metrics, NodeConfig,
    clock::SystemClock,
    config::DataDir,
    flags::{
        Change, ChangeError, Definition, EvalContext, EvalError, Evaluation, Flags, Gates, Reason, Setting,
        Source, Targeting,
    },
    host::Parts,
    test::eventually,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

fn definitions() -> Vec<Definition> {
    let modes = ["off", "shadow", "on"];
    vec![
        Definition::new("shards", &modes, "off").targeting(Targeting::Percent),
        Definition::new("members", &modes, "off"),
        Definition::new("sessions", &modes, "off").requires("members", "on"),
        Definition::new("kill.backend.*", &["off", "on"], "off").kill(),
    ]
}

fn open(path: &Path) -> Flags {
    let flags = Flags::open(path.into(), None, Gates::default(), Arc::new(SystemClock));
    flags.define(definitions()).unwrap();
    flags
}

fn change(key: &str, to: Setting) -> Change {
    let (reason, actor) = ("a test".into(), "tester".into());
    Change { key: key.into(), to, reason, actor, expected_revision: None, cascade: false }
}

fn set(flags: &Flags, key: &str, variant: &str) {
    flags.change_blocking(&change(key, Setting::all(variant))).unwrap();
}

fn asked(flags: &Flags, key: &str) -> (String, Source) {
    let Evaluation { variant, source, .. } = flags.variant(key, &EvalContext::NOBODY);
    (variant.to_string(), source)
}

fn shards(variant: &str) -> String {
    let variants = r#"{"off": "off", "shadow": "shadow", "on": "on"}"#;
    format!(
        r#"{{"flags": {{"shards": {{"state": "ENABLED", "variants": {variants}, "defaultVariant": "{variant}"}}}}}}"#
    )
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flags.json");
    (dir, path)
}

#[test]
fn a_change_is_in_force_at_once_and_after_a_restart() {
    let (_dir, path) = file();
    let flags = open(&path);
    assert_eq!((asked(&flags, "shards"), flags.revision()), (("off".into(), Source::Default), 0));
    set(&flags, "shards", "shadow");
    assert_eq!((asked(&flags, "shards"), flags.revision()), (("shadow".into(), Source::File), 1));
    drop(flags);
    let flags = open(&path);
    assert_eq!(
        (asked(&flags, "shards"), flags.revision(), flags.problem()),
        (("shadow".into(), Source::File), 1, None)
    );
}

#[test]
fn bad_content_is_never_taken_and_a_restart_still_has_the_last_good_one() {
    let (dir, path) = file();
    let flags = open(&path);
    set(&flags, "shards", "on");
    let good = fs::read_to_string(&path).unwrap();
    let bad = [
        String::new(),
        " \n".into(),
        good[..good.len() / 2].into(),
        format!("{good}{good}"),
        good.replace("\"ENABLED\"", "7"),
        good.replace("\"defaultVariant\": \"on\"", "\"defaultVariant\": \"maybe\""),
        good.replace("\"shadow\": \"shadow\"", "\"shadow\": {}"),
        "x".repeat(300 * 1024),
        "null".into(),
        shards("on").replace("shards", "sessions"),
    ];
    for text in bad {
        fs::write(&path, &text).unwrap();
        flags.poll();
        let head: String = text.chars().take(40).collect();
        assert_eq!(asked(&flags, "shards"), ("on".into(), Source::File), "{head}");
        let problem = flags.problem().unwrap_or_else(|| panic!("taken: {head}"));
        assert!(
            problem.starts_with("flags.json: ") && problem.ends_with("revision 1 stays in force"),
            "{problem}"
        );
        if text.contains("sessions") {
            continue; // A start refuses what breaks a requirement: the next test.
        }
        let restarted = open(&path);
        assert_eq!((asked(&restarted, "shards").0, restarted.revision()), ("on".into(), 1), "{head}");
        assert!(restarted.problem().is_some(), "{head}");
    }
    fs::remove_file(&path).unwrap();
    flags.poll();
    assert!(flags.problem().unwrap().contains("the file is gone"));
    assert_eq!(asked(&flags, "shards").0, "on");
    fs::write(&path, "broken").unwrap();
    set(&flags, "shards", "shadow");
    assert_eq!((flags.problem(), flags.revision()), (None, 2), "a change writes a good file again");
    assert_eq!(fs::read_to_string(dir.path().join("flags.bad.json")).unwrap(), "broken");
}

#[test]
fn a_start_with_an_unmet_requirement_is_refused_naming_it() {
    let (_dir, path) = file();
    fs::write(&path, shards("on").replace("shards", "sessions")).unwrap();
    let flags = Flags::open(path, None, Gates::default(), Arc::new(SystemClock));
    let refused = flags.define(definitions()).unwrap_err().to_string();
    assert!(refused.contains("sessions=on requires members=on"), "{refused}");
    let gates = Gates::parse("sessions=shadow").unwrap();
    let flags = Flags::in_memory(gates, Arc::new(SystemClock));
    let refused = flags.define(definitions()).unwrap_err().to_string();
    assert!(refused.contains("sessions=shadow requires members=on"), "{refused}");
}

#[test]
fn an_edit_by_hand_counts_as_a_revision_also_over_a_restart() {
    let (_dir, path) = file();
    let flags = open(&path);
    set(&flags, "shards", "shadow");
    fs::write(&path, shards("on")).unwrap();
    flags.poll();
    assert_eq!((asked(&flags, "shards").0, flags.revision()), ("on".into(), 2));
    drop(flags);
    assert_eq!(open(&path).revision(), 2);
    fs::write(&path, shards("off")).unwrap();
    assert_eq!(open(&path).revision(), 3);
}

#[test]
fn two_writers_of_one_file_see_each_other() {
    let (_dir, path) = file();
    let (a, b) = (open(&path), open(&path));
    set(&a, "shards", "shadow");
    let stale = Change { expected_revision: Some(0), ..change("shards", Setting::all("on")) };
    let refused = b.change_blocking(&stale).unwrap_err();
    assert!(matches!(refused, ChangeError::Conflict { expected: 0, current: 1 }), "{refused}");
    set(&b, "members", "on");
    a.poll();
    assert_eq!(
        (asked(&a, "members").0, asked(&a, "shards").0, a.revision()),
        ("on".into(), "shadow".into(), 2)
    );
    let racing: Vec<_> = (0..8)
        .map(|n| if n % 2 == 0 { a.clone() } else { b.clone() })
        .enumerate()
        .map(|(n, flags)| std::thread::spawn(move || set(&flags, &format!("kill.backend.b{n}"), "on")))
        .collect();
    racing.into_iter().for_each(|thread| thread.join().unwrap());
    a.poll();
    b.poll();
    assert_eq!((a.revision(), b.revision()), (10, 10), "no change was lost");
}

#[test]
fn a_change_that_was_made_before_changes_nothing() {
    let (_dir, path) = file();
    let flags = open(&path);
    set(&flags, "shards", "on");
    let again = flags.change_blocking(&change("shards", Setting::all("on"))).unwrap();
    assert_eq!((again.revision, again.touched, flags.revision()), (1, vec![], 1));
}

#[test]
fn a_disk_that_refuses_changes_nothing() {
    let (dir, path) = file();
    let flags = open(&path);
    fs::create_dir(dir.path().join("flags.audit.jsonl")).unwrap();
    let refused = flags.change_blocking(&change("shards", Setting::all("on"))).unwrap_err();
    assert!(matches!(refused, ChangeError::Store(_)), "{refused}");
    assert_eq!((asked(&flags, "shards").0, flags.revision(), path.exists()), ("off".into(), 0, false));
}

#[tokio::test]
async fn every_change_is_in_the_history() {
    let (_dir, path) = file();
    let flags = open(&path);
    set(&flags, "members", "on");
    set(&flags, "sessions", "on");
    let off = Change { cascade: true, ..change("members", Setting::all("off")) };
    let changed = flags.change(off).await.unwrap();
    assert_eq!((changed.revision, changed.touched.len()), (3, 2));
    let history = flags.history(None, 10).await.unwrap();
    let lines: Vec<_> =
        history.iter().map(|r| format!("{} {} {}->{}", r.revision, r.key, r.old, r.new)).collect();
    assert_eq!(lines, ["3 sessions on->off", "3 members on->off", "2 sessions off->on", "1 members off->on"]);
    assert!(
        history.iter().all(|record| record.actor == "tester" && record.reason == "a test" && record.time > 0)
    );
    assert_eq!(flags.history(Some("sessions"), 1).await.unwrap()[0].revision, 3);
}

#[test]
fn a_handle_follows_changes_and_splits_by_key() {
    let flags = Flags::for_test(&[("shards", "off")]);
    let handle = flags.handle("shards");
    assert_eq!((handle.place(&EvalContext::NOBODY), handle.is("off", &EvalContext::NOBODY)), (0, true));
    let share = Setting::Variant { variant: "on".into(), percent: Some(30), tenants: vec![] };
    flags.change_blocking(&change("shards", share)).unwrap();
    let keys: Vec<String> = (0..1000).map(|n| format!("server-{n}")).collect();
    let on = keys.iter().filter(|key| handle.place(&EvalContext::key(key)) == 2).count();
    assert!((250..350).contains(&on), "{on}");
    for key in &keys {
        let context = EvalContext::key(key);
        assert_eq!(handle.evaluate(&context), flags.variant("shards", &context));
    }
    assert_eq!(handle.place_for_all(), None);
    assert!(handle.reaches("on") && handle.reaches("off") && !handle.reaches("shadow"));
    let missing = handle.evaluate(&EvalContext::NOBODY);
    assert_eq!((&*missing.variant, missing.error), ("off", Some(EvalError::TargetingKeyMissing)));
    set(&flags, "shards", "on");
    assert!(handle.is("on", &EvalContext::NOBODY));
    assert_eq!((handle.place_for_all(), handle.reaches("off")), (Some(2), false));
}

#[test]
fn the_same_key_gets_the_same_answer_on_every_node_of_a_revision() {
    let (dir, path) = file();
    let flags = open(&path);
    let share = Setting::Variant { variant: "on".into(), percent: Some(37), tenants: vec![] };
    flags.change_blocking(&change("shards", share)).unwrap();
    let copy = dir.path().join("other.json");
    fs::copy(&path, &copy).unwrap();
    let other = open(&copy);
    for n in 0..2000 {
        let key = format!("k{n}");
        assert_eq!(
            flags.variant("shards", &EvalContext::key(&key)),
            other.variant("shards", &EvalContext::key(&key))
        );
    }
}

#[test]
fn unknown_flags_are_off_and_told() {
    let flags = Flags::for_test(&[]);
    let Evaluation { variant, reason, error, .. } = flags.variant("what", &EvalContext::NOBODY);
    assert_eq!((&*variant, reason, error), ("off", Reason::Error, Some(EvalError::FlagNotFound)));
    assert!(flags.handle("what").is("off", &EvalContext::NOBODY));
}

#[test]
fn a_wildcard_switch_is_known_under_any_name() {
    let flags = Flags::in_memory(Gates::default(), Arc::new(SystemClock));
    flags.define(definitions()).unwrap();
    let (time, git) = (flags.handle("kill.backend.time"), flags.handle("kill.backend.git"));
    let backends = flags.switches("kill.backend.");
    assert!(time.is("off", &EvalContext::NOBODY) && !backends.thrown("time"));
    flags.change_blocking(&change("kill.backend.time", Setting::Kill)).unwrap();
    assert!(time.is("on", &EvalContext::NOBODY) && git.is("off", &EvalContext::NOBODY));
    assert!(backends.thrown("time") && !backends.thrown("git") && !backends.thrown("tim"));
    assert_eq!(asked(&flags, "kill.backend.time"), ("on".into(), Source::Kill));
    flags.change_blocking(&change("kill.backend.time", Setting::Revive)).unwrap();
    assert!(!backends.thrown("time"), "at once");
}

#[test]
fn metrics_show_variants_revision_and_a_bad_file() {
    let (_dir, path) = file();
    let flags = open(&path);
    let metrics = Metrics::new();
    flags.register(&metrics);
    set(&flags, "shards", "shadow");
    let text = metrics.encode();
    for line in [
        "swarm_feature_enabled{name=\"shards\",stage=\"live\",variant=\"shadow\"} 1",
        "swarm_feature_enabled{name=\"shards\",stage=\"live\",variant=\"on\"} 0",
        "swarm_flags_revision 1",
        "swarm_flags_file_refused 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    fs::write(&path, "").unwrap();
    flags.poll();
    assert!(metrics.encode().contains("swarm_flags_file_refused 1"));
}

/// A node on real time: a kill by another process' hand, and one by an edit of the file, are in
/// force within a second, while eight tasks ask all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_reaches_a_busy_node_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::Path(dir.path().join("n1"));
    let host =
        Host::bind(&NodeConfig { data, ..NodeConfig::for_test("n1") }, Parts::default()).await.unwrap();
    host.context().flags.define(definitions()).unwrap();
    let served = host.serve().await;
    let flags = served.context().flags.clone();
    set(&flags, "shards", "on");
    let handle = flags.handle("shards");
    let load: Vec<_> = (0..8)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move {
                loop {
                    let _ = handle.place(&EvalContext::key("k"));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let path = dir.path().join("n1/flags.json");
    let operator = open(&path);
    operator.change(change("shards", Setting::Kill)).await.unwrap();
    eventually("the kill of another process", SECOND, async || {
        handle.is("off", &EvalContext::NOBODY).then_some(())
    })
    .await;
    assert_eq!(flags.variant("shards", &EvalContext::NOBODY).source, Source::Kill);
    fs::write(&path, shards("on")).unwrap();
    eventually("an edit by hand", SECOND, async || handle.is("on", &EvalContext::NOBODY).then_some(())).await;
    flags.change(change("shards", Setting::Kill)).await.unwrap();
    assert!(handle.is("off", &EvalContext::NOBODY), "an own kill is in force when it is answered");
    load.into_iter().for_each(|task| task.abort());
    served.shutdown();
    served.stopped().await.unwrap();
}
