//! What only our own form has: every key is known, and an edge can be told how to call.

use super::fields::Fields;
use proto::registry::BackendSpec;
use serde_json::{Map, Value};

const KEYS: [&str; 9] =
    ["type", "command", "args", "env", "cwd", "url", "headers", "call_timeout", "strategy"];
const STRATEGIES: [&str; 2] = ["per_connection", "pooled"];

/// Refuses a key that would be passed over in silence.
pub(super) fn check_keys(fields: &Map<String, Value>) -> Result<(), String> {
    let Some(unknown) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) else {
        return Ok(());
    };
    let near = kit::config::nearest(unknown, KEYS.into_iter());
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(format!("unknown key `{unknown}`{near}"))
}

/// Adds `call_timeout` and `strategy`.
pub(super) fn tuned(mut spec: BackendSpec, fields: &Fields<'_>) -> Result<BackendSpec, String> {
    if let Some(timeout) = fields.text(&["call_timeout"])? {
        let millis = kit::config::duration::parse(&timeout)?.as_millis();
        let millis = u32::try_from(millis).ok().filter(|millis| *millis > 0);
        spec.call_timeout_ms = millis.ok_or("`call_timeout` must be over 0 and at most 49 days")?;
    }
    if let Some(strategy) = fields.text(&["strategy"])? {
        if !STRATEGIES.contains(&strategy.as_str()) {
            return Err(format!("unknown strategy `{strategy}`; one of {} is meant", STRATEGIES.join(", ")));
        }
        spec.strategy = strategy;
    }
    Ok(spec)
}
