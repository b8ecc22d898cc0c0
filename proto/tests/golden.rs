//! The wire contract only grows: every line of `golden.txt` must still hold.
//!
//! Additions pass. `SWARM_UPDATE_GOLDEN=1` writes them down (and still refuses a removal);
//! `SWARM_UPDATE_GOLDEN=force` takes whatever is there, for a contract nobody has deployed.

// clippy's leave for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::{collections::BTreeSet, env, fs, path::Path};

#[test]
fn nothing_on_the_wire_is_removed_renumbered_or_retyped() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt");
    let golden: BTreeSet<String> =
        fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
    let current = contract(proto::DESCRIPTORS);
    let update = env::var("SWARM_UPDATE_GOLDEN").unwrap_or_default();
    let broken = broken(&golden, &current);
    assert!(
        broken.is_empty() || update == "force",
        "removed, renumbered or retyped; add a new field with a new number instead:\n{}",
        broken.join("\n")
    );
    if !update.is_empty() {
        let lines: Vec<_> = current.into_iter().collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
}

#[test]
fn a_removed_a_renumbered_and_a_retyped_field_are_found_and_an_added_one_is_not() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let golden =
        lines("m.gone = 1 string optional\nm.moved = 2 string optional\nm.typed = 3 string optional");
    let current = lines("m.moved = 4 string optional\nm.typed = 3 bytes optional\nm.new = 5 bool optional");
    let broken = broken(&golden, &current);
    assert_eq!(
        broken,
        ["m.gone = 1 string optional", "m.moved = 2 string optional", "m.typed = 3 string optional",]
    );
}

#[test]
fn the_golden_file_is_not_empty_and_numbers_are_unique() {
    let current = contract(proto::DESCRIPTORS);
    assert!(current.iter().any(|line| line.starts_with("swarm.registry.v1.Registration.name = 1 string")));
    let keys: Vec<_> = current.iter().filter_map(|line| message_and_number(line)).collect();
    let unique: BTreeSet<_> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len());
}

fn broken(golden: &BTreeSet<String>, current: &BTreeSet<String>) -> Vec<String> {
    golden.difference(current).cloned().collect()
}

fn message_and_number(line: &str) -> Option<(String, String)> {
    let (field, rest) = line.split_once(" = ")?;
    let message = field.rsplit_once('.')?.0;
    Some((message.to_owned(), rest.split(' ').next()?.to_owned()))
}

/// One line a field, an enum value and a method, with full names.
fn contract(descriptors: &[u8]) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(descriptors).unwrap();
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("swarm.")) {
        let package = file.package();
        file.message_type.iter().for_each(|message| message_lines(package, message, &mut lines));
        file.enum_type.iter().for_each(|values| enum_lines(package, values, &mut lines));
        file.service.iter().for_each(|service| service_lines(package, service, &mut lines));
    }
    lines
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let label = match field.label() {
            Label::Repeated => "repeated",
            Label::Optional if field.proto3_optional() => "presence",
            Label::Optional if field.oneof_index.is_some() => "oneof",
            Label::Optional => "optional",
            Label::Required => "required",
        };
        let kind = match field.r#type() {
            Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
            scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        };
        lines.insert(format!("{name}.{} = {} {kind} {label}", field.name(), field.number()));
    }
    message.nested_type.iter().for_each(|nested| message_lines(&name, nested, lines));
    message.enum_type.iter().for_each(|values| enum_lines(&name, values, lines));
}

fn enum_lines(scope: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &values.value {
        lines.insert(format!("{scope}.{}.{} = {} enum value", values.name(), value.name(), value.number()));
    }
}

fn service_lines(package: &str, service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    for method in &service.method {
        let stream = |streaming: bool| if streaming { "stream " } else { "" };
        lines.insert(format!(
            "{package}.{}/{} ({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}
