//! A table for people, or one JSON object a line.

use serde::Serialize;

/// One figure of ours, beside a peer's where there is one.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) area: &'static str,
    pub(crate) name: String,
    pub(crate) ours: f64,
    /// Ours in the worst of the rounds, where there were several.
    pub(crate) worst: Option<f64>,
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<&'static str>,
    /// ours / peer.
    pub(crate) ratio: Option<f64>,
    pub(crate) unit: &'static str,
    /// The bound in words, e.g. ">= 0.33 of direct".
    pub(crate) goal: Option<&'static str>,
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A figure alone.
    pub(crate) fn new(area: &'static str, name: impl Into<String>, ours: f64, unit: &'static str) -> Row {
        let name = name.into();
        Row {
            area,
            name,
            ours,
            worst: None,
            peer: None,
            peer_name: None,
            ratio: None,
            unit,
            goal: None,
            met: None,
        }
    }

    /// Beside a peer's figure of the same run.
    pub(crate) fn against(mut self, peer_name: &'static str, peer: f64) -> Row {
        (self.peer, self.peer_name, self.ratio) = (Some(peer), Some(peer_name), Some(self.ours / peer));
        self
    }

    /// With a bound, and whether it is met.
    pub(crate) fn goal(mut self, goal: &'static str, met: bool) -> Row {
        (self.goal, self.met) = (Some(goal), Some(met));
        self
    }
}

/// Prints all rows.
pub(crate) fn print(rows: &[Row], json: bool) {
    if json {
        for row in rows {
            println!("{}", serde_json::to_string(row).unwrap_or_default());
        }
        return;
    }
    let head = ["", "ours", "worst", "peer", "ratio", "unit", "the peer", "goal"].map(str::to_owned);
    println!("{}", line(&head));
    for row in rows {
        println!("{}", line(&columns(row)));
    }
}

fn columns(row: &Row) -> [String; 8] {
    let met = row.met.map_or("", |met| if met { "met" } else { "MISSED" });
    [
        format!("{}: {}", row.area, row.name),
        number(row.ours),
        row.worst.map_or_else(String::new, number),
        row.peer.map_or_else(String::new, number),
        row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
        row.unit.to_owned(),
        row.peer_name.unwrap_or_default().to_owned(),
        row.goal.map_or_else(String::new, |goal| format!("{goal}: {met}")),
    ]
}

fn line([name, ours, worst, peer, ratio, unit, peer_name, goal]: &[String; 8]) -> String {
    let line =
        format!("{name:<62} {ours:>10} {worst:>10} {peer:>10} {ratio:>8} {unit:<12} {peer_name:<46} {goal}");
    line.trim_end().to_owned()
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
