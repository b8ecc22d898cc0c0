//! The routes over real HTTP, with flags of the tests' own: which are live in this build changes.

use super::*;
use crate::client::Http;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kit::{
    Host,
    flags::{Definition, Targeting},
    host::Served,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

struct Node {
    served: Served,
    http: Http,
}

impl Node {
    async fn start() -> Node {
        let host = Host::for_test("n1").await;
        let modes = ["off", "shadow", "on"];
        let definitions = [
            Definition::new("registry.sharding", &modes, "off").targeting(Targeting::Percent),
            Definition::new("cluster.gossip", &modes, "off"),
            Definition::new("cluster.phi-detector", &modes, "off").requires("cluster.gossip", "on"),
            Definition {
                stage: "absent".into(),
                ..Definition::new("session.tiering", &["off", "on"], "off")
            },
            Definition::new("kill.backend.*", &["off", "on"], "off").kill(),
        ];
        host.context().flags.define(definitions).expect("good");
        host.context().admin.merge(router("n1", host.context().flags.clone()));
        Node { served: host.serve().await, http: Http::pooled() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&'static str, String)],
    ) -> (StatusCode, HeaderMap, Value) {
        let url = format!("http://{}{path}", self.served.context().admin_addr);
        let mut all = HeaderMap::new();
        all.insert("content-type", HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            all.insert(*name, value.parse().expect("a header"));
        }
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let reply = self.http.send(method, &url, all, body, SOON).await.expect("an answer");
        let (status, headers) = (reply.status, reply.headers.clone());
        let body = reply.whole(SOON).await.expect("a body");
        (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(Method::GET, path, Value::Null, &[]).await;
        (status, body)
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, _, body) = self.ask(Method::POST, path, body, &[]).await;
        (status, body)
    }
}

#[test]
fn every_flag_of_the_roll_out_is_taken_as_it_is_defined() {
    let flags = Flags::for_test(&[]);
    define(&flags).expect("what this build runs goes together");
    for flag in phases::FLAGS.iter().filter(|flag| !flag.key.ends_with('*')) {
        let view = flags.view(flag.key).expect(flag.key);
        assert_eq!((&*view.variant, view.setting.as_str()), (flag.runs(), flag.runs()));
        let definition = view.definition.expect("defined");
        assert_eq!((definition.safe(), definition.stage.as_str()), (flag.safe(), flag.stage()));
        let percent = matches!(flag.scope, phases::Scope::Percent(_));
        assert_eq!(definition.targeting == Targeting::Percent, percent, "{}", flag.key);
    }
    assert!(flags.view("kill.backend.time").is_some_and(|view| view.definition.is_some_and(|d| d.kill)));
}

#[tokio::test]
async fn a_change_is_listed_recorded_and_guarded_by_the_revision() {
    let node = Node::start().await;
    let set =
        json!({"variant": "on", "percent": 5, "reason": "phase 1", "actor": "ops", "expected_revision": 0});
    let (status, changed) = node.post("/api/v1/flags/registry.sharding", set.clone()).await;
    assert_eq!((status, changed["revision"].as_u64()), (StatusCode::OK, Some(1)), "{changed}");
    assert_eq!(
        changed["changed"][0],
        json!({"key": "registry.sharding", "old": "off", "new": "on 5%, else off"})
    );
    let (status, refused) = node.post("/api/v1/flags/registry.sharding", set).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    let (_, flag) = node.get("/api/v1/flags/registry.sharding").await;
    assert_eq!((&flag["setting"], &flag["source"]), (&json!("on 5%, else off"), &json!("file")));
    let (_, list) = node.get("/api/v1/flags").await;
    assert_eq!((list["revision"].as_u64(), list["flags"].as_array().map(Vec::len)), (Some(1), Some(4)));
    let (_, history) = node.get("/api/v1/flag-history?key=registry.sharding").await;
    assert_eq!(history["records"][0]["reason"], "phase 1");
    assert_eq!(history["records"][0]["actor"], "ops");
}

#[tokio::test]
async fn refusals_say_why_with_a_code() {
    let node = Node::start().await;
    let on = json!({"variant": "on", "reason": "x"});
    for (key, body, status, code, words) in [
        ("registry.shardin", on.clone(), 404, "not_found", "did you mean registry.sharding?"),
        ("registry.sharding", json!({"variant": "on", "reason": ""}), 400, "usage", "needs a reason"),
        (
            "registry.sharding",
            json!({"variant": "on", "reason": "x", "percnt": 5}),
            422,
            "usage",
            "unknown field",
        ),
        ("cluster.phi-detector", on.clone(), 409, "unmet_requirement", "requires cluster.gossip=on"),
        ("session.tiering", on, 409, "locked", "absent in this build"),
    ] {
        let (got, body) = node.post(&format!("/api/v1/flags/{key}"), body).await;
        assert_eq!((got.as_u16(), &body["error"]["code"]), (status, &json!(code)), "{key}: {body}");
        assert!(body["error"]["message"].as_str().is_some_and(|message| message.contains(words)), "{body}");
    }
}

#[tokio::test]
async fn a_kill_is_above_all_and_is_lifted() {
    let node = Node::start().await;
    node.post("/api/v1/flags/registry.sharding", json!({"variant": "on", "reason": "x"})).await;
    let (status, _) = node.post("/api/v1/flags/registry.sharding/kill", json!({"reason": "bad"})).await;
    assert_eq!(status, StatusCode::OK);
    let (_, flag) = node.get("/api/v1/flags/registry.sharding").await;
    assert_eq!((&flag["setting"], &flag["source"]), (&json!("off (killed)"), &json!("kill")));
    node.post("/api/v1/flags/registry.sharding/kill", json!({"reason": "good", "lift": true})).await;
    let (_, flag) = node.get("/api/v1/flags/registry.sharding").await;
    assert_eq!(flag["setting"], "on");
    let (status, _) = node.post("/api/v1/flags/kill.backend.time/kill", json!({"reason": "sick"})).await;
    assert_eq!(status, StatusCode::OK);
    let (_, flag) = node.get("/api/v1/flags/kill.backend.time").await;
    assert_eq!((&flag["variant"], &flag["source"]), (&json!("on"), &json!("kill")));
}

#[tokio::test]
async fn ofrep_answers_one_flag_and_its_errors() {
    let node = Node::start().await;
    let path = "/ofrep/v1/evaluate/flags/registry.sharding";
    let (status, found) = node.post(path, json!({"context": {"targetingKey": "time"}})).await;
    assert_eq!((status, &found["variant"], &found["value"]), (StatusCode::OK, &json!("off"), &json!("off")));
    assert_eq!((&found["reason"], &found["key"]), (&json!("STATIC"), &json!("registry.sharding")));
    assert!(
        found["metadata"]
            .as_object()
            .is_some_and(|all| all.values().all(|value| !value.is_object() && !value.is_array()))
    );
    node.post("/api/v1/flags/registry.sharding", json!({"variant": "on", "percent": 50, "reason": "x"}))
        .await;
    let (_, found) = node.post(path, json!({"context": {"targetingKey": "time"}})).await;
    assert_eq!(found["reason"], "SPLIT");
    for (path, body, status, code) in [
        (path, json!({}), 400, "TARGETING_KEY_MISSING"),
        (path, json!({"context": 5}), 400, "INVALID_CONTEXT"),
        (path, json!({"context": {"targetingKey": 5}}), 400, "INVALID_CONTEXT"),
        (path, json!([]), 400, "PARSE_ERROR"),
        ("/ofrep/v1/evaluate/flags/nothing", json!({}), 404, "FLAG_NOT_FOUND"),
    ] {
        let (got, body) = node.post(path, body).await;
        assert_eq!((got.as_u16(), &body["errorCode"]), (status, &json!(code)), "{body}");
        assert!(body["key"].is_string() && body["errorDetails"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn ofrep_answers_all_flags_with_a_tag_that_changes_with_them() {
    let node = Node::start().await;
    let all = "/ofrep/v1/evaluate/flags";
    let context = json!({"context": {"targetingKey": "time", "tenant": "a"}});
    let (status, headers, body) = node.ask(Method::POST, all, context.clone(), &[]).await;
    assert_eq!((status, body["flags"].as_array().map(Vec::len)), (StatusCode::OK, Some(4)));
    let tag = headers["etag"].to_str().expect("text").to_owned();
    let known = [("if-none-match", tag.clone())];
    let (status, headers, body) = node.ask(Method::POST, all, context.clone(), &known).await;
    assert_eq!(
        (status, body, headers["etag"].to_str().ok()),
        (StatusCode::NOT_MODIFIED, Value::Null, Some(tag.as_str()))
    );
    node.post("/api/v1/flags/registry.sharding", json!({"variant": "on", "percent": 50, "reason": "x"}))
        .await;
    let (status, _, body) = node.ask(Method::POST, all, context, &known).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, _, body) = node.ask(Method::POST, all, json!({}), &[]).await;
    let sharding =
        body["flags"].as_array().and_then(|all| all.iter().find(|flag| flag["key"] == "registry.sharding"));
    assert_eq!(sharding.map(|flag| &flag["errorCode"]), Some(&json!("TARGETING_KEY_MISSING")));
    let (status, _, body) = node.ask(Method::POST, all, json!({"context": []}), &[]).await;
    assert_eq!((status, &body["errorCode"]), (StatusCode::BAD_REQUEST, &json!("INVALID_CONTEXT")));
    let (_, headers, body) = node.ask(Method::GET, "/ofrep/v1/configuration", Value::Null, &[]).await;
    assert_eq!((&body["name"], headers.contains_key("etag")), (&json!("swarm"), true));
}
