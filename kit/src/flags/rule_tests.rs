use super::*;
use proptest::prelude::*;
use serde_json::json;

fn rule(value: Value) -> Result<Rule, String> {
    Rule::parse(&value, &|variant| ["off", "shadow", "on"].contains(&variant))
}

fn name<'a>(outcome: Outcome<'a>) -> &'a str {
    match outcome {
        Outcome::Match(variant) | Outcome::Split(variant) => variant,
        Outcome::Default => "default",
        Outcome::KeyMissing => "missing",
    }
}

#[test]
fn tenants_are_picked_by_equality_and_by_list() {
    let rule = rule(json!({"if": [
        {"==": [{"var": "tenant"}, "a"]}, "on",
        {"in": [{"var": "tenant"}, ["b", "c"]]}, "shadow",
    ]}))
    .unwrap();
    let asked = |tenant: &str| {
        let attributes = [("tenant", Attribute::from(tenant))];
        name(rule.evaluate("f", &EvalContext::NOBODY.with(&attributes))).to_owned()
    };
    assert_eq!(["a", "b", "c", "d"].map(asked), ["on", "shadow", "shadow", "default"]);
    assert_eq!(rule.evaluate("f", &EvalContext::NOBODY), Outcome::Default);
    assert_eq!(rule.outcomes(), [None, Some("on".into()), Some("shadow".into())].into());
}

#[test]
fn and_or_not_and_types_hold() {
    let rule = rule(json!({"if": [
        {"and": [{"!": [{"==": [{"var": "n"}, "1"]}]}, {"or": [{"==": [{"var": "n"}, 1]}, {"!=": [{"var": "b"}, true]}]}]},
        "on", "off"]}))
    .unwrap();
    let asked = |attributes: &[(&str, Attribute<'_>)]| {
        name(rule.evaluate("f", &EvalContext::NOBODY.with(attributes))).to_owned()
    };
    assert_eq!(asked(&[("n", Attribute::Number(1.0)), ("b", Attribute::Bool(true))]), "on");
    assert_eq!(asked(&[("n", Attribute::Text("1")), ("b", Attribute::Bool(true))]), "off");
    assert_eq!(asked(&[("n", Attribute::Number(2.0)), ("b", Attribute::Bool(true))]), "off");
}

/// What flagd spells out as `cat` of flag key and targeting key is the bucket when none is named.
#[test]
fn a_share_is_taken_of_flag_key_and_targeting_key() {
    let split = rule(json!({"fractional": [["on", 50], ["off", 50]]})).unwrap();
    let spelled = rule(json!({"fractional": [
        {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["on", 50], ["off", 50]]}));
    assert_eq!(spelled.unwrap(), split);
    assert_eq!(split.evaluate("f", &EvalContext::NOBODY), Outcome::KeyMissing);
    let on = |flag: &str| {
        let keys = (0..10_000).map(|n| format!("key-{n}"));
        keys.filter(|key| name(split.evaluate(flag, &EvalContext::key(key))) == "on").count()
    };
    for flag in ["f", "registry.sharding"] {
        assert!((4_800..5_200).contains(&on(flag)), "{flag}: {}", on(flag));
    }
}

#[test]
fn a_named_bucket_does_not_depend_on_the_flag() {
    let split = rule(json!({"fractional": [{"var": "tenant"}, ["on", 50], ["off", 50]]})).unwrap();
    let attributes = [("tenant", Attribute::from("a"))];
    let context = EvalContext::key("x").with(&attributes);
    assert_eq!(split.evaluate("f", &context), split.evaluate("g", &context));
    assert_eq!(split.evaluate("f", &EvalContext::key("x")), Outcome::KeyMissing);
}

#[test]
fn what_is_not_understood_is_refused_with_its_reason() {
    for (value, reason) in [
        (json!({"ends_with": ["a", "b"]}), "\"ends_with\" is no rule"),
        (json!({"if": [{"sem_ver": []}, "on"]}), "\"sem_ver\" is no condition"),
        (json!({"if": [true]}), "if needs a condition"),
        (json!({"fractional": [["on", -1]]}), "no whole number"),
        (json!({"fractional": [["on", 0]]}), "above 0"),
        (json!({"fractional": [["maybe", 1]]}), "none of the flag's variants"),
        (json!({"fractional": [["on", 2147483647], ["off", 1]]}), "sum up to more"),
        (json!({"if": [{"in": ["a", "abc"]}, "on"]}), "in needs a value and a list"),
        (json!(5), "is no rule"),
        (json!({}), "is no operation"),
    ] {
        let refused = rule(value.clone()).unwrap_err();
        assert!(refused.contains(reason), "{value}: {refused}");
    }
    let deep = (0..20).fold(json!("on"), |inner, _| json!({"if": [{"==": [1, 1]}, inner]}));
    assert!(rule(deep).unwrap_err().contains("nested deeper"));
}

proptest! {
    #[test]
    fn raising_a_share_never_takes_a_key_out(key in ".{0,40}", flag in "[a-z.]{1,20}", low in 0u64..=100, more in 0u64..=100) {
        let share = |percent: u64| rule(json!({"fractional": [["on", percent], ["off", 100 - percent]]})).unwrap();
        let (low, high) = (low, (low + more).min(100));
        let context = EvalContext::key(&key);
        if name(share(low).evaluate(&flag, &context)) == "on" {
            let raised = share(high);
            prop_assert_eq!(name(raised.evaluate(&flag, &context)), "on");
        }
    }

    #[test]
    fn any_json_is_read_or_refused(text in ".{0,200}") {
        if let Ok(value) = serde_json::from_str(&text) {
            let _ = rule(value);
        }
    }
}
