//! OFREP, OpenFeature's remote evaluation protocol, version 1: single and bulk evaluation with
//! ETag, and the provider's configuration.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kit::flags::{Attribute, EvalContext, EvalError, Evaluation, Flags};
use serde_json::{Map, Value, json};

const BODY_MAX: usize = 64 * 1024;
/// Flags are live within this; asking more often shows nothing new.
const MIN_POLLING_MS: u64 = 1000;

pub(super) fn router<S: Clone + Send + Sync + 'static>(flags: Flags) -> Router<S> {
    Router::new()
        .route("/ofrep/v1/evaluate/flags/{key}", post(evaluate))
        .route("/ofrep/v1/evaluate/flags", post(evaluate_all))
        .route("/ofrep/v1/configuration", get(configuration))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(flags)
}

async fn evaluate(State(flags): State<Flags>, Path(key): Path<String>, body: Bytes) -> Response {
    let context = match read_context(&body) {
        Ok(context) => context,
        Err((code, details)) => {
            return (StatusCode::BAD_REQUEST, Json(failure(Some(&key), code, &details))).into_response();
        }
    };
    match answer(&flags, &key, &context) {
        Ok(found) => Json(found).into_response(),
        Err(EvalError::FlagNotFound) => (StatusCode::NOT_FOUND, Json(not_found(&key))).into_response(),
        Err(EvalError::TargetingKeyMissing) => {
            (StatusCode::BAD_REQUEST, Json(key_missing(&key))).into_response()
        }
    }
}

async fn evaluate_all(State(flags): State<Flags>, headers: HeaderMap, body: Bytes) -> Response {
    let context = match read_context(&body) {
        Ok(context) => context,
        Err((code, details)) => {
            return (StatusCode::BAD_REQUEST, Json(failure(None, code, &details))).into_response();
        }
    };
    let revision = flags.revision();
    let answers = flags.list().into_iter().map(|view| match answer(&flags, &view.key, &context) {
        Ok(found) => found,
        Err(EvalError::FlagNotFound) => not_found(&view.key),
        Err(EvalError::TargetingKeyMissing) => key_missing(&view.key),
    });
    let body = json!({"flags": answers.collect::<Vec<_>>(), "metadata": {"flagSetId": "swarm", "version": revision.to_string()}});
    tagged(&headers, &body)
}

async fn configuration(headers: HeaderMap) -> Response {
    let body = json!({
        "name": "swarm",
        "capabilities": {
            "cacheInvalidation": {"polling": {"enabled": true, "minPollingIntervalMs": MIN_POLLING_MS}},
            "flagEvaluation": {"supportedTypes": ["string", "boolean", "int", "float"]},
        },
    });
    tagged(&headers, &body)
}

type Context = Map<String, Value>;

/// `{"context": {...}}`; no body is nobody in particular.
fn read_context(body: &[u8]) -> Result<Context, (&'static str, String)> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Context::new());
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| ("PARSE_ERROR", error.to_string()))?;
    let Value::Object(mut body) = body else {
        return Err(("PARSE_ERROR", "the body must be an object".into()));
    };
    let context = match body.remove("context") {
        None | Some(Value::Null) => return Ok(Context::new()),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(("INVALID_CONTEXT", "context must be an object".into())),
    };
    match context.get("targetingKey") {
        None | Some(Value::String(_)) => Ok(context),
        Some(_) => Err(("INVALID_CONTEXT", "targetingKey must be a string".into())),
    }
}

fn answer(flags: &Flags, key: &str, context: &Context) -> Result<Value, EvalError> {
    let attributes: Vec<_> = context
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), Attribute::of_json(value)?)))
        .collect();
    let targeting_key = context.get("targetingKey").and_then(Value::as_str);
    let Evaluation { variant, reason, source, revision, error } =
        flags.variant(key, &EvalContext { targeting_key, attributes: &attributes });
    if let Some(error) = error {
        return Err(error);
    }
    let mut metadata = json!({"source": source, "revision": revision});
    if let (Some(definition), Some(metadata)) = (flags.definition(key), metadata.as_object_mut()) {
        let requires: Vec<_> =
            definition.requires.iter().map(|(key, variant)| format!("{key}={variant}")).collect();
        metadata.insert("stage".into(), definition.stage.as_str().into());
        metadata.insert("requires".into(), requires.join(",").into());
    }
    let value = flags.value(key, &variant);
    Ok(json!({"key": key, "reason": reason, "variant": &*variant, "value": value, "metadata": metadata}))
}

fn failure(key: Option<&str>, code: &str, details: &str) -> Value {
    let mut failure = json!({"errorCode": code, "errorDetails": details});
    if let (Some(key), Some(fields)) = (key, failure.as_object_mut()) {
        fields.insert("key".into(), key.into());
    }
    failure
}

fn not_found(key: &str) -> Value {
    failure(Some(key), "FLAG_NOT_FOUND", "no flag has this key")
}

fn key_missing(key: &str) -> Value {
    failure(
        Some(key),
        "TARGETING_KEY_MISSING",
        "the flag is set by percentage; the context needs a targetingKey",
    )
}

/// The body with its ETag, or 304 when the caller has it.
fn tagged(headers: &HeaderMap, body: &Value) -> Response {
    let tag = format!("\"{}\"", kit::config::sha256(body));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let same = known
        .split(',')
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == tag || known == "*");
    let status = if same { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = if same { status.into_response() } else { Json(body).into_response() };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
