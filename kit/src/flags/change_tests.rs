use super::super::context::{Attribute, EvalContext};
use super::*;
use proptest::prelude::*;

/// A chain with a branch, as roll-outs have: members <- (sessions <- tiers), raft.
fn known() -> Definitions {
    let modes = ["off", "shadow", "on"];
    let mut known = Definitions::default();
    for definition in [
        Definition::new("members", &modes, "on"),
        Definition { targeting: Targeting::Percent, ..Definition::new("sessions", &modes, "on") }
            .requires("members", "on"),
        Definition { targeting: Targeting::Attributes, ..Definition::new("tiers", &["off", "on"], "off") }
            .requires("sessions", "on"),
        Definition::new("raft", &modes, "off").requires("members", "on"),
        Definition { stage: "fixed".into(), ..Definition::new("old", &["off", "on"], "on") },
        Definition::new("kill.backend.*", &["off", "on"], "off").kill(),
    ] {
        known.insert(definition);
    }
    known
}

fn change(key: &str, to: Setting) -> Change {
    let (reason, actor) = ("because".into(), "me".into());
    Change { key: key.into(), to, reason, actor, expected_revision: None, cascade: false }
}

fn applied(document: &Document, change: &Change) -> Result<Document, ChangeError> {
    apply(&known(), document, &Gates::default(), change).map(|(next, _)| next)
}

fn setting(document: &Document, key: &str) -> String {
    let (known, gates) = (known(), Gates::default());
    describe(&Inputs { known: &known, document, gates: &gates }.resolve(key, true))
}

fn some(variant: &str, percent: Option<u8>, tenants: &[&str]) -> Setting {
    let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
    Setting::Variant { variant: variant.into(), percent, tenants }
}

#[test]
fn a_missing_parent_is_named_and_a_needed_one_stays() {
    let start = Document::default();
    let refused = applied(&start, &change("members", Setting::all("off"))).unwrap_err();
    assert!(
        matches!(&refused, ChangeError::NeededBy { dependents, .. } if dependents == "sessions"),
        "{refused}"
    );
    let cascade = Change { cascade: true, ..change("members", Setting::all("off")) };
    let (next, touched) = apply(&known(), &start, &Gates::default(), &cascade).unwrap();
    let touched: Vec<_> = touched.iter().map(|t| (t.key.as_str(), t.old.as_str(), t.new.as_str())).collect();
    assert_eq!(touched, [("members", "on", "off"), ("sessions", "on", "off")]);
    assert_eq!(next.revision, 1);
    let refused = applied(&next, &change("raft", Setting::all("shadow"))).unwrap_err();
    assert_eq!(refused.to_string(), "raft=shadow requires members=on");
}

#[test]
fn a_parent_that_is_on_for_some_only_is_not_on() {
    let some_sessions =
        applied(&Document::default(), &change("sessions", some("on", Some(50), &[]))).unwrap();
    let refused = applied(&some_sessions, &change("tiers", some("on", None, &["a"]))).unwrap_err();
    assert_eq!(refused.to_string(), "tiers=on requires sessions=on");
    let tiers = applied(&Document::default(), &change("tiers", some("on", None, &["a"]))).unwrap();
    let refused = applied(&tiers, &change("sessions", some("on", Some(99), &[]))).unwrap_err();
    assert!(matches!(refused, ChangeError::NeededBy { .. }), "{refused}");
}

#[test]
fn shares_and_tenants_read_as_they_were_asked_for() {
    let off = applied(&Document::default(), &change("sessions", Setting::all("off"))).unwrap();
    let five = applied(&off, &change("sessions", some("on", Some(5), &[]))).unwrap();
    assert_eq!(setting(&five, "sessions"), "on 5%, else off");
    let raised = applied(&five, &change("sessions", some("on", Some(25), &[]))).unwrap();
    assert_eq!(setting(&raised, "sessions"), "on 25%, else off");
    let tenants = applied(&raised, &change("sessions", some("on", Some(10), &["a", "b"]))).unwrap();
    assert_eq!(setting(&tenants, "sessions"), "on 10% for tenant a,b, else off");
    let all = applied(&tenants, &change("sessions", some("on", Some(100), &[]))).unwrap();
    assert_eq!(setting(&all, "sessions"), "on");
    let back = applied(&all, &change("sessions", some("on", Some(5), &[]))).unwrap();
    assert_eq!(setting(&back, "sessions"), "on 5%, else off", "lowering from all goes to safe");
    let default = applied(&back, &change("sessions", Setting::Default)).unwrap();
    assert!(default.flags.is_empty());
}

#[test]
fn a_kill_takes_what_builds_on_it_back_and_returns_it() {
    let start = applied(&Document::default(), &change("tiers", Setting::all("on"))).unwrap();
    let killed = applied(&start, &change("members", Setting::Kill)).unwrap();
    let settings = ["members", "sessions", "tiers", "raft"].map(|key| setting(&killed, key));
    assert_eq!(settings, ["off (killed)", "off (killed)", "off (killed)", "off (killed)"]);
    let refused = applied(&killed, &change("members", Setting::all("shadow"))).unwrap_err();
    assert!(matches!(refused, ChangeError::Killed { .. }));
    let revived = applied(&killed, &change("members", Setting::Revive)).unwrap();
    assert_eq!(["members", "sessions", "tiers"].map(|key| setting(&revived, key)), ["on", "on", "on"]);
    let switch = applied(&revived, &change("kill.backend.time", Setting::Kill)).unwrap();
    assert_eq!(setting(&switch, "kill.backend.time"), "on (killed)");
    let switch = applied(&switch, &change("kill.backend.time", Setting::Revive)).unwrap();
    assert_eq!(setting(&switch, "kill.backend.time"), "off");
}

#[test]
fn the_environment_is_above_the_file_and_below_a_kill() {
    let gates = Gates::parse("sessions=shadow,kill.backend.a=on").unwrap();
    let known = known();
    let words = |document: &Document, key: &str| {
        let resolved = Inputs { known: &known, document, gates: &gates }.resolve(key, true);
        (describe(&resolved), resolved.source.to_string())
    };
    let start = Document::default();
    assert_eq!(words(&start, "sessions"), ("shadow".into(), "env".into()));
    assert_eq!(words(&start, "kill.backend.a"), ("on".into(), "env".into()));
    let refused = apply(&known, &start, &gates, &change("sessions", Setting::all("on"))).unwrap_err();
    assert!(matches!(&refused, ChangeError::Pinned { variant, .. } if variant == "shadow"), "{refused}");
    let (killed, _) = apply(&known, &start, &gates, &change("sessions", Setting::Kill)).unwrap();
    assert_eq!(words(&killed, "sessions"), ("off (killed)".into(), "kill".into()));
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let start = Document { revision: 3, ..Document::default() };
    let base = change("sessions", Setting::all("on"));
    for (change, words) in [
        (
            Change { key: "sesions".into(), ..base.clone() },
            "no flag is named \"sesions\"; did you mean sessions?",
        ),
        (Change { key: "kill.backend.*".into(), ..base.clone() }, "no flag is named"),
        (Change { key: "kill.backend.a b".into(), ..base.clone() }, "no flag is named"),
        (
            Change { to: Setting::all("maybe"), ..base.clone() },
            "sessions cannot be \"maybe\"; it can be off|shadow|on",
        ),
        (Change { reason: " ".into(), ..base.clone() }, "needs a reason"),
        (Change { reason: "x".repeat(2000), ..base.clone() }, "needs a reason"),
        (Change { expected_revision: Some(2), ..base.clone() }, "at revision 3, not 2"),
        (Change { to: some("on", Some(101), &[]), ..base.clone() }, "percentages from 0 to 100"),
        (Change { to: some("on", None, &[""]), ..base }, "tenants of 1 to 128"),
        (change("members", some("on", Some(5), &[])), "one value for all"),
        (change("tiers", some("on", Some(5), &[])), "goes by tenant"),
        (change("old", Setting::all("off")), "old is fixed in this build and stays on"),
        (change("old", Setting::Kill), "old is fixed in this build and stays on"),
    ] {
        let refused = applied(&start, &change).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

fn any_setting() -> impl Strategy<Value = Setting> {
    let variant = prop_oneof![Just("off"), Just("shadow"), Just("on")];
    prop_oneof![
        4 => variant.clone().prop_map(Setting::all),
        2 => (variant.clone(), 0u8..=100).prop_map(|(variant, percent)| some(variant, Some(percent), &[])),
        2 => variant.prop_map(|variant| some(variant, None, &["a"])),
        1 => Just(Setting::Default),
        1 => Just(Setting::Kill),
        1 => Just(Setting::Revive),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let key =
        prop_oneof![Just("members"), Just("sessions"), Just("tiers"), Just("raft"), Just("kill.backend.x")];
    (key, any_setting(), any::<bool>()).prop_map(|(key, to, cascade)| Change { cascade, ..change(key, to) })
}

proptest! {
    /// Whoever asks, in whatever tenant and with whatever key: what is not safe has what it requires.
    #[test]
    fn no_state_that_changes_reach_has_an_unmet_requirement(
        steps in proptest::collection::vec(any_change(), 1..40),
        keys in proptest::collection::vec(".{0,12}", 4),
    ) {
        let (known, gates) = (known(), Gates::default());
        let mut document = Document::default();
        for step in steps {
            let Ok((next, touched)) = apply(&known, &document, &gates, &step) else { continue };
            let changed = next.flags != document.flags;
            prop_assert_eq!(next.revision, document.revision + u64::from(changed));
            prop_assert_eq!(touched.iter().any(|touched| touched.key == step.key), changed);
            prop_assert_eq!(&Document::parse(next.to_text().as_bytes()).unwrap(), &next);
            document = next;
            let inputs = Inputs { known: &known, document: &document, gates: &gates };
            prop_assert_eq!(inputs.unmet(), vec![]);
            let snapshot = inputs.snapshot();
            let tenant = [("tenant", Attribute::from("a"))];
            let asked = keys.iter().map(|key| EvalContext::key(key)).chain([EvalContext::NOBODY, EvalContext::NOBODY.with(&tenant)]);
            for context in asked {
                for flag in snapshot.flags.values() {
                    let definition = flag.definition.clone().unwrap();
                    if **flag.variant(&context) == *definition.safe() { continue }
                    for (parent, needed) in &definition.requires {
                        prop_assert_eq!(&**snapshot.flags[parent].variant(&context), needed.as_str(), "{} needs {}", flag.key, parent);
                    }
                }
            }
        }
    }

    #[test]
    fn raising_a_share_by_command_never_takes_a_key_out(key in ".{0,30}", mut percents in proptest::collection::vec(0u8..=100, 1..8)) {
        percents.sort_unstable();
        let (known, gates) = (known(), Gates::default());
        let mut document = applied(&Document::default(), &change("sessions", Setting::all("off"))).unwrap();
        let mut was_on = false;
        for percent in percents {
            document = applied(&document, &change("sessions", some("on", Some(percent), &[]))).unwrap();
            let resolved = Inputs { known: &known, document: &document, gates: &gates }.resolve("sessions", true);
            let on = **resolved.variant(&EvalContext::key(&key)) == *"on";
            prop_assert!(on || !was_on, "{percent}% took {key:?} out");
            was_on = on;
        }
        prop_assert!(document.flags["sessions"].default_variant.is_some());
    }
}
