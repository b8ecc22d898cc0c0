//! Targeting rules: the part of flagd's JsonLogic that a roll-out needs.
//!
//! ```text
//! rule    := "variant" | null | {"if": [condition, rule, (condition, rule)*, rule?]}
//!          | {"fractional": [bucket?, ["variant", weight], ...]}
//! condition := {"==": [operand, operand]} | {"!=": [...]} | {"in": [operand, [literal, ...]]}
//!          | {"and": [condition, ...]} | {"or": [...]} | {"!": condition}
//! operand := {"var": "name"} | literal          literal := string | number | true | false
//! bucket  := {"var": "name"} | {"cat": [operand, ...]}
//! ```
//! `null`, and an `if` without a match, mean the flag's `defaultVariant`. Without a bucket the
//! bucket is flag key + `targetingKey`, as in flagd. Comparison is by type: `1` is not `"1"`.
//! A key's place is `murmur3_32(bucket) * total weight >> 32`, so a share that grows from the front
//! at a constant total only ever takes keys in.

use super::{
    context::{Attribute, EvalContext},
    murmur::Murmur3,
};
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};

const DEPTH_MAX: usize = 8;
const ITEMS_MAX: usize = 256;
const WEIGHT_MAX: u64 = i32::MAX as u64;

/// A rule that parsed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    Variant(Arc<str>),
    Default,
    If { branches: Vec<(Condition, Rule)>, otherwise: Box<Rule> },
    Fractional { bucket: Option<Vec<Operand>>, shares: Vec<(Arc<str>, u64)>, total: u64 },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    Equal(Operand, Operand),
    In(Operand, Vec<Operand>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Var(String),
    Text(String),
    Number(f64),
    Bool(bool),
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    Match(&'a Arc<str>),
    Split(&'a Arc<str>),
    Default,
    /// A share is asked for and the context has nothing to take it of.
    KeyMissing,
}

impl Rule {
    /// Reads a rule whose variants are all among `known`.
    pub(super) fn parse(value: &Value, known: &dyn Fn(&str) -> bool) -> Result<Rule, String> {
        parse_rule(value, known, 0)
    }

    pub(super) fn evaluate(&self, flag: &str, context: &EvalContext<'_>) -> Outcome<'_> {
        match self {
            Rule::Variant(variant) => Outcome::Match(variant),
            Rule::Default => Outcome::Default,
            Rule::If { branches, otherwise } => {
                let branch = branches.iter().find(|(condition, _)| condition.holds(context));
                branch.map_or(&**otherwise, |(_, rule)| rule).evaluate(flag, context)
            }
            Rule::Fractional { bucket, shares, total } => {
                let Some(hash) = bucket_hash(bucket.as_deref(), flag, context) else {
                    return Outcome::KeyMissing;
                };
                share_of(hash, shares, *total).map_or(Outcome::Default, Outcome::Split)
            }
        }
    }

    /// Every variant that somebody may get; `None` stands for the default one.
    pub(super) fn outcomes(&self) -> BTreeSet<Option<Arc<str>>> {
        match self {
            Rule::Variant(variant) => [Some(variant.clone())].into(),
            Rule::Default => [None].into(),
            Rule::If { branches, otherwise } => {
                let all = branches.iter().map(|(_, rule)| rule).chain([&**otherwise]);
                all.flat_map(Rule::outcomes).collect()
            }
            // Without a key to take a share of, the default is the answer.
            Rule::Fractional { shares, .. } => {
                let named = shares.iter().filter(|(_, weight)| *weight > 0);
                named.map(|(variant, _)| Some(variant.clone())).chain([None]).collect()
            }
        }
    }
}

impl Condition {
    fn holds(&self, context: &EvalContext<'_>) -> bool {
        match self {
            Condition::Equal(left, right) => same(left, right, context),
            Condition::In(operand, list) => list.iter().any(|item| same(operand, item, context)),
            Condition::And(all) => all.iter().all(|condition| condition.holds(context)),
            Condition::Or(any) => any.iter().any(|condition| condition.holds(context)),
            Condition::Not(condition) => !condition.holds(context),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, context: &EvalContext<'a>) -> Option<Attribute<'a>> {
        match self {
            Operand::Var(name) => context.get(name),
            Operand::Text(text) => Some(Attribute::Text(text)),
            Operand::Number(number) => Some(Attribute::Number(*number)),
            Operand::Bool(value) => Some(Attribute::Bool(*value)),
        }
    }
}

/// What is missing equals nothing, not even what is missing too.
fn same<'a>(left: &'a Operand, right: &'a Operand, context: &EvalContext<'a>) -> bool {
    let value = left.value(context);
    value.is_some() && value == right.value(context)
}

fn bucket_hash(bucket: Option<&[Operand]>, flag: &str, context: &EvalContext<'_>) -> Option<u32> {
    let mut hash = Murmur3::default();
    let Some(parts) = bucket else {
        hash.write(flag.as_bytes());
        hash.write(context.targeting_key?.as_bytes());
        return Some(hash.finish());
    };
    for part in parts {
        match part.value(context)? {
            Attribute::Text(text) => hash.write(text.as_bytes()),
            Attribute::Number(number) => hash.write(number.to_string().as_bytes()),
            Attribute::Bool(value) => hash.write(value.to_string().as_bytes()),
        }
    }
    Some(hash.finish())
}

fn share_of(hash: u32, shares: &[(Arc<str>, u64)], total: u64) -> Option<&Arc<str>> {
    let place = (u64::from(hash) * total) >> 32;
    let mut end = 0;
    let share = shares.iter().find(|(_, weight)| {
        end += weight;
        place < end
    });
    share.map(|(variant, _)| variant)
}

fn parse_rule(value: &Value, known: &dyn Fn(&str) -> bool, depth: usize) -> Result<Rule, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    }
    match value {
        Value::Null => Ok(Rule::Default),
        Value::String(variant) => variant_of(variant, known).map(Rule::Variant),
        Value::Object(_) => match operation(value)? {
            ("if", arguments) => parse_if(list("if", arguments)?, known, depth),
            ("fractional", arguments) => parse_fractional(list("fractional", arguments)?, known),
            (other, _) => Err(format!("{other:?} is no rule here; if and fractional are")),
        },
        other => Err(format!("{other} is no rule; a variant's name, null, if or fractional are")),
    }
}

fn parse_if(items: &[Value], known: &dyn Fn(&str) -> bool, depth: usize) -> Result<Rule, String> {
    let mut branches = Vec::new();
    let mut rest = items;
    while let [condition, rule, tail @ ..] = rest {
        branches.push((parse_condition(condition, depth + 1)?, parse_rule(rule, known, depth + 1)?));
        rest = tail;
    }
    if branches.is_empty() {
        return Err("if needs a condition and a rule".into());
    }
    let otherwise = rest.first().map_or(Ok(Rule::Default), |rule| parse_rule(rule, known, depth + 1))?;
    Ok(Rule::If { branches, otherwise: Box::new(otherwise) })
}

fn parse_fractional(items: &[Value], known: &dyn Fn(&str) -> bool) -> Result<Rule, String> {
    let (bucket, shares) = match items {
        [first @ (Value::Object(_) | Value::Null), rest @ ..] => (parse_bucket(first)?, rest),
        rest => (None, rest),
    };
    let shares = shares.iter().map(|share| parse_share(share, known)).collect::<Result<Vec<_>, _>>()?;
    let total = shares.iter().map(|(_, weight)| weight).sum();
    match total {
        0 => Err("fractional needs shares with weights above 0".into()),
        1..=WEIGHT_MAX => Ok(Rule::Fractional { bucket, shares, total }),
        _ => Err(format!("weights sum up to more than {WEIGHT_MAX}")),
    }
}

fn parse_share(share: &Value, known: &dyn Fn(&str) -> bool) -> Result<(Arc<str>, u64), String> {
    let (variant, weight) = match share.as_array().map(Vec::as_slice) {
        Some([Value::String(variant)]) => (variant, Some(1)),
        Some([Value::String(variant), weight]) => (variant, weight.as_u64()),
        _ => return Err(format!("{share} is no share; [\"variant\", weight] is")),
    };
    let weight = weight.filter(|weight| *weight <= WEIGHT_MAX);
    let weight = weight
        .ok_or_else(|| format!("the weight of {variant:?} is no whole number from 0 to {WEIGHT_MAX}"))?;
    Ok((variant_of(variant, known)?, weight))
}

fn parse_bucket(value: &Value) -> Result<Option<Vec<Operand>>, String> {
    if value.is_null() {
        return Ok(None);
    }
    match operation(value)? {
        ("var", _) => Ok(Some(vec![parse_operand(value)?])),
        ("cat", parts) => {
            let parts = list("cat", parts)?.iter().map(parse_operand).collect::<Result<Vec<_>, _>>()?;
            // flagd's own words for flag key + targeting key; the default bucket says the same.
            let own = [Operand::Var("$flagd.flagKey".into()), Operand::Var("targetingKey".into())];
            if parts == own {
                return Ok(None);
            }
            Ok(Some(parts))
        }
        (other, _) => Err(format!("{other:?} is no bucket; var and cat are")),
    }
}

fn parse_condition(value: &Value, depth: usize) -> Result<Condition, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    }
    let all = |arguments| {
        let conditions = list("and/or", arguments)?.iter();
        conditions.map(|condition| parse_condition(condition, depth + 1)).collect::<Result<Vec<_>, String>>()
    };
    match operation(value)? {
        ("==", pair) => parse_pair(pair).map(|(left, right)| Condition::Equal(left, right)),
        ("!=", pair) => {
            parse_pair(pair).map(|(left, right)| Condition::Not(Box::new(Condition::Equal(left, right))))
        }
        ("in", arguments) => match list("in", arguments)? {
            [operand, Value::Array(items)] if items.len() <= ITEMS_MAX => {
                let items = items.iter().map(parse_operand).collect::<Result<Vec<_>, _>>()?;
                Ok(Condition::In(parse_operand(operand)?, items))
            }
            _ => Err(format!("in needs a value and a list of at most {ITEMS_MAX}")),
        },
        ("and", arguments) => all(arguments).map(Condition::And),
        ("or", arguments) => all(arguments).map(Condition::Or),
        ("!", argument) => {
            let argument = argument.as_array().and_then(|list| list.first()).unwrap_or(argument);
            parse_condition(argument, depth + 1).map(|condition| Condition::Not(Box::new(condition)))
        }
        (other, _) => Err(format!("{other:?} is no condition here; ==, !=, in, and, or, ! are")),
    }
}

fn parse_pair(value: &Value) -> Result<(Operand, Operand), String> {
    match list("==", value)? {
        [left, right] => Ok((parse_operand(left)?, parse_operand(right)?)),
        _ => Err("a comparison needs two values".into()),
    }
}

fn parse_operand(value: &Value) -> Result<Operand, String> {
    match value {
        Value::String(text) => Ok(Operand::Text(text.clone())),
        Value::Bool(value) => Ok(Operand::Bool(*value)),
        Value::Number(number) => Ok(Operand::Number(number.as_f64().unwrap_or_default())),
        Value::Object(_) => match operation(value)? {
            ("var", Value::String(name)) => Ok(Operand::Var(name.clone())),
            ("var", Value::Array(names)) => match names.as_slice() {
                [Value::String(name)] => Ok(Operand::Var(name.clone())),
                _ => Err("var needs one name".into()),
            },
            (other, _) => Err(format!("{other:?} gives no value here; var does")),
        },
        other => Err(format!("{other} is no value to compare")),
    }
}

fn operation(value: &Value) -> Result<(&str, &Value), String> {
    let mut entries = value.as_object().into_iter().flatten();
    match (entries.next(), entries.next()) {
        (Some((name, arguments)), None) => Ok((name, arguments)),
        _ => Err(format!("{value} is no operation: one key with its arguments is")),
    }
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a [Value], String> {
    let items = value.as_array().ok_or_else(|| format!("{name} needs a list"))?;
    if items.len() > ITEMS_MAX { Err(format!("{name} has more than {ITEMS_MAX} items")) } else { Ok(items) }
}

fn variant_of(variant: &str, known: &dyn Fn(&str) -> bool) -> Result<Arc<str>, String> {
    if known(variant) {
        Ok(variant.into())
    } else {
        Err(format!("{variant:?} is none of the flag's variants"))
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
