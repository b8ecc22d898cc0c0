//! What commands print: data on stdout, words on stderr.

use serde::Serialize;
use serde_json::Value;
use std::io::Write as _;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON object.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Whether it is read by programs.
    pub fn is_data(self) -> bool {
        matches!(self, Format::Json | Format::Yaml)
    }
}

/// Something with a human form beside its data.
pub trait Show: Serialize {
    /// The human form.
    fn table(&self, wide: bool) -> String;
}

/// Prints in the wanted form.
pub fn print(format: Format, shown: &impl Show) {
    match format {
        Format::Table => to_stdout(&shown.table(false)),
        Format::Wide => to_stdout(&shown.table(true)),
        Format::Json => to_stdout(&pretty(&as_value(shown))),
        Format::Yaml => to_stdout(yaml(&as_value(shown)).trim_end()),
    }
}

fn as_value(shown: &impl Serialize) -> Value {
    serde_json::to_value(shown).unwrap_or(Value::Null)
}

/// JSON as people read it.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A line to stdout. A closed pipe is the reader's choice, not an error.
pub fn to_stdout(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line to stderr.
pub fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Left-aligned columns, two spaces apart.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with column heads.
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Lays it out.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// YAML of a JSON value: every string quoted as JSON does, which YAML reads alike.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    yaml_into(&mut text, value, 0);
    text
}

fn yaml_into(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                text.push_str(&format!("{indent}{}:", Value::from(key.as_str())));
                yaml_child(text, field, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                yaml_child(text, item, depth);
            }
        }
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

fn yaml_child(text: &mut String, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        text.push('\n');
        yaml_into(text, value, depth + 1);
    } else {
        text.push_str(&format!(" {value}\n"));
    }
}

/// "3 s", "2 min", "5 h", "4 d".
pub fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// "1 tool", "2 tools".
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["n1".into(), "alive".into()]);
        table.row(["node-long".into(), "d".into()]);
        assert_eq!(table.render(), "NAME       STATE\nn1         alive\nnode-long  d");
    }

    #[test]
    fn yaml_nests_by_indent() {
        let text = yaml(&json!({ "a": [1, { "b": "x: y" }], "c": [], "d": null }));
        assert_eq!(text, "\"a\":\n  - 1\n  -\n    \"b\": \"x: y\"\n\"c\": []\n\"d\": null\n");
    }
}
