use super::*;
use proto::registry::{HttpTransport, StdioTransport};

fn stdio(command: &str, env: &[(&str, &str)]) -> BackendSpec {
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let transport = StdioTransport { command: command.to_owned(), env, ..StdioTransport::default() };
    BackendSpec { transport: Some(Transport::Stdio(transport)), ..BackendSpec::default() }
}

fn http(url: &str) -> BackendSpec {
    let transport = HttpTransport { url: url.to_owned(), ..HttpTransport::default() };
    BackendSpec { transport: Some(Transport::Http(transport)), ..BackendSpec::default() }
}

fn entry(name: &str, spec: BackendSpec) -> Entry {
    Entry { name: name.to_owned(), spec }
}

fn standing(name: &str, owner: &str, source: &str, spec: BackendSpec) -> Registration {
    Registration {
        name: name.to_owned(),
        kind: Kind::Backend.into(),
        owner: owner.to_owned(),
        labels: BTreeMap::from([(SOURCE.to_owned(), source.to_owned())]),
        spec: Some(Spec::Backend(spec.into())),
        ..Registration::default()
    }
}

/// Plans as "me", applies or imports.
fn plan(mode: Mode, prune: bool, entries: &[Entry], standing: &[Registration]) -> Vec<Task> {
    let mentioned = BTreeSet::from(["broken".to_owned()]);
    let shown = Shown::Masked;
    solve(&Wanted { entries, mentioned: &mentioned, owner: "me", mode, prune, shown }, standing)
}

fn told(tasks: &[Task]) -> Vec<(Action, &str)> {
    tasks.iter().map(|task| (task.step.action, task.step.name.as_str())).collect()
}

#[test]
fn new_same_changed_and_refused_are_told_apart() {
    let before = [
        standing("changed", "me", "import", http("http://a/")),
        standing("foreign", "node/n1", "import", stdio("a", &[])),
        standing("same", "me", "import", stdio("a", &[])),
        standing("shared", "node/n1", "import", stdio("a", &[])),
    ];
    let entries = [
        entry("new", stdio("a", &[])),
        entry("same", stdio("a", &[])),
        entry("shared", stdio("a", &[])),
        entry("changed", http("http://b/")),
        entry("foreign", stdio("b", &[])),
        entry("new", stdio("b", &[])),
        entry("tls", http("https://b/")),
    ];
    let tasks = plan(Mode::Import, false, &entries, &before);
    let expected = [
        (Action::Add, "new"),
        (Action::Same, "same"),
        (Action::Same, "shared"),
        (Action::Change, "changed"),
        (Action::Refused, "foreign"),
        (Action::Refused, "new"),
        (Action::Refused, "tls"),
    ];
    assert_eq!(told(&tasks), expected);
    assert_eq!(tasks[2].step.reason, "registered by node/n1");
    assert_eq!(tasks[4].step.reason, "node/n1 has registered another server under this name");
    assert_eq!(tasks[5].step.reason, "the name is used twice");
    assert_eq!(tasks[6].step.reason, "https backends are not supported yet (http:// only)");
    let registered: Vec<bool> = tasks.iter().map(|task| task.spec.is_some()).collect();
    assert_eq!(registered, [true, false, false, true, false, false, false]);
}

#[test]
fn changed_fields_are_named_and_secrets_are_not_shown() {
    let before = [standing("a", "me", "import", stdio("x", &[("GONE", "1"), ("KEY", "old"), ("SAME", "s")]))];
    let after = [entry("a", stdio("y", &[("KEY", "new"), ("SAME", "s"), ("VAR", "${X}")]))];
    let change = |field: &str, from: Option<&str>, to: Option<&str>| Change {
        field: field.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    let changes = [
        change("command", Some("x"), Some("y")),
        change("env.GONE", Some("***"), None),
        change("env.KEY", Some("***"), Some("***")),
        change("env.VAR", None, Some("${X}")),
    ];
    assert_eq!(plan(Mode::Import, false, &after, &before)[0].step.changes, changes);
    let other = [entry("a", http("http://b/"))];
    let changes = [change("transport", Some("x"), Some("http://b/"))];
    assert_eq!(plan(Mode::Import, false, &other, &before)[0].step.changes, changes);
}

#[test]
fn arguments_that_differ_only_in_a_secret_differ() {
    let with = |token: &str| {
        let args = vec!["--token".to_owned(), token.to_owned()];
        let transport = StdioTransport { command: "x".to_owned(), args, ..StdioTransport::default() };
        BackendSpec { transport: Some(Transport::Stdio(transport)), ..BackendSpec::default() }
    };
    let tasks =
        plan(Mode::Import, false, &[entry("a", with("2"))], &[standing("a", "me", "import", with("1"))]);
    let change = Change { field: "args".into(), from: Some("***".into()), to: Some("***".into()) };
    assert_eq!(tasks[0].step.changes, [change]);
}

#[test]
fn only_what_the_same_owner_applied_is_pruned() {
    let before = [
        standing("applied", "me", "apply", stdio("a", &[])),
        standing("broken", "me", "apply", stdio("a", &[])),
        standing("imported", "me", "import", stdio("a", &[])),
        standing("kept", "me", "apply", stdio("a", &[])),
        standing("other", "you", "apply", stdio("a", &[])),
    ];
    let entries = [entry("kept", stdio("a", &[]))];
    let tasks = plan(Mode::Apply, true, &entries, &before);
    assert_eq!(told(&tasks), [(Action::Same, "kept"), (Action::Remove, "applied")]);
    assert_eq!(told(&plan(Mode::Apply, false, &entries, &before)), [(Action::Same, "kept")]);
    assert_eq!(told(&plan(Mode::Import, true, &entries, &before)), [(Action::Same, "kept")]);
}

#[test]
fn apply_takes_over_what_was_imported_by_the_same_owner() {
    let before = [standing("a", "me", "import", stdio("x", &[]))];
    let tasks = plan(Mode::Apply, false, &[entry("a", stdio("x", &[]))], &before);
    let change = Change { field: "source".into(), from: Some("import".into()), to: Some("apply".into()) };
    assert_eq!(
        (tasks[0].step.action, tasks[0].step.changes.as_slice()),
        (Action::Change, [change].as_slice())
    );
}

#[test]
fn what_a_file_has_no_word_for_stays() {
    let tuned = BackendSpec {
        strategy: "pooled".to_owned(),
        call_timeout_ms: 5000,
        weight: 2,
        zone: "z1".to_owned(),
        ..stdio("x", &[])
    };
    let before = [standing("a", "me", "import", tuned)];
    let same = plan(Mode::Import, false, &[entry("a", stdio("x", &[]))], &before);
    assert_eq!(same[0].step.action, Action::Same);
    let changed = plan(Mode::Import, false, &[entry("a", stdio("y", &[]))], &before);
    assert_eq!(changed[0].spec.as_ref().expect("a spec").call_timeout_ms, 5000);
    let longer = BackendSpec { call_timeout_ms: 9000, ..stdio("x", &[]) };
    let longer = plan(Mode::Import, false, &[entry("a", longer)], &before);
    assert_eq!(longer[0].step.changes[0].field, "call_timeout_ms");
}

#[test]
fn a_name_of_another_kind_is_refused() {
    let agent = Registration {
        kind: Kind::Agent.into(),
        spec: Some(Spec::Opaque(Vec::new().into())),
        ..standing("a", "me", "import", stdio("x", &[]))
    };
    let tasks = plan(Mode::Import, false, &[entry("a", stdio("x", &[]))], &[agent]);
    assert_eq!(tasks[0].step.reason, "me has registered something else under it");
}
