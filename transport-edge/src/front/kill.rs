//! What an operator has switched off, live.

use super::answer::{self, Reply};
use crate::{
    core::codes::{Problem, own},
    session::Scope,
};
use http::{HeaderValue, StatusCode, header};
use kit::flags::{EvalContext, FlagHandle, Flags, Switches};
use serde_json::json;

/// When a client may look again.
const RETRY_AFTER_MS: u64 = 1000;

/// The flags that a request meets: three comparisons of a counter while nothing changes.
pub(crate) struct Kill {
    http: FlagHandle,
    calls: FlagHandle,
    backends: Switches,
    modern: FlagHandle,
}

impl Kill {
    pub(crate) fn new(flags: &Flags) -> Self {
        Kill {
            http: flags.handle("kill.transport.http"),
            calls: flags.handle("kill.tool-calls"),
            backends: flags.switches("kill.backend."),
            modern: flags.handle("mcp.modern-era"),
        }
    }

    /// Refuses a whole request, before its body is read.
    pub(crate) fn request(&self, scope: &Scope) -> Result<(), Box<Reply>> {
        if self.http.is("on", &EvalContext::NOBODY) {
            return Err(refused("kill.transport.http", "MCP over HTTP is switched off by an operator"));
        }
        match scope {
            Scope::One(name) if self.backends.thrown(name) => {
                Err(refused(&format!("kill.backend.{name}"), &format!("backend {name}: {OFF}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a request that a backend would answer.
    pub(crate) fn call(&self, method: &str, backend: &str) -> Result<(), Problem> {
        if self.backends.thrown(backend) {
            return Err(problem(&format!("kill.backend.{backend}"), &format!("backend {backend}: {OFF}")));
        }
        if method == "tools/call" && self.calls.is("on", &EvalContext::NOBODY) {
            return Err(problem("kill.tool-calls", "tool calls are switched off by an operator"));
        }
        Ok(())
    }

    /// Whether requests of the modern era are served. If not, they are what they are to a server
    /// that only knows sessions (MCP.md 1.2, 26).
    pub(crate) fn serves_modern(&self) -> bool {
        !self.modern.is("off", &EvalContext::NOBODY)
    }
}

const OFF: &str = "it is switched off by an operator";

fn problem(switch: &str, why: &str) -> Problem {
    let data = json!({ "reason": why, "switch": switch, "retryable": true, "retryAfterMs": RETRY_AFTER_MS });
    Problem::new(own::BACKEND_UNAVAILABLE, why).with(data)
}

/// 503 with `Retry-After`; the connection may hold the rest of the body, so it ends.
fn refused(switch: &str, why: &str) -> Box<Reply> {
    let mut reply = answer::problem(StatusCode::SERVICE_UNAVAILABLE, None, &problem(switch, why));
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Box::new(reply)
}
