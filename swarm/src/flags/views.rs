//! `/api/v1/flags...`: handlers translate.

use super::wire::{Change, ChangeRequest, Changed, Flag, FlagList, History, KillRequest};
use crate::error::Failure;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kit::flags::{self, ChangeError, Flags, Setting, Touched, View};
use serde::Deserialize;
use std::sync::Arc;

const BODY_MAX: usize = 64 * 1024;
const HISTORY_DEFAULT: usize = 50;
const HISTORY_MAX: usize = 1000;

#[derive(Clone)]
struct Views {
    node: Arc<str>,
    flags: Flags,
}

pub(super) fn router<S: Clone + Send + Sync + 'static>(node: &str, flags: Flags) -> Router<S> {
    Router::new()
        .route("/api/v1/flags", get(list))
        .route("/api/v1/flags/{key}", get(one).post(change))
        .route("/api/v1/flags/{key}/kill", post(kill))
        .route("/api/v1/flag-history", get(history))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Views { node: node.into(), flags })
}

/// A refusal in the one shape of the admin port.
struct Refused(StatusCode, &'static str, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        kit::admin::error(self.0, self.1, &self.2)
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Refused {
        let (status, code) = match &error {
            ChangeError::UnknownFlag { .. } => (StatusCode::NOT_FOUND, Failure::NotFound.word()),
            ChangeError::Invalid(_) => (StatusCode::BAD_REQUEST, Failure::Usage.word()),
            ChangeError::Locked { .. } => (StatusCode::CONFLICT, "locked"),
            ChangeError::Pinned { .. } => (StatusCode::CONFLICT, "pinned"),
            ChangeError::Killed { .. } => (StatusCode::CONFLICT, "killed"),
            ChangeError::Requires { .. } | ChangeError::NeededBy { .. } => {
                (StatusCode::CONFLICT, "unmet_requirement")
            }
            ChangeError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            ChangeError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            ChangeError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, Failure::Failed.word()),
            ChangeError::Unknown(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unknown"),
        };
        Refused(status, code, error.to_string())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Refused {
        Refused(rejection.status(), Failure::Usage.word(), rejection.body_text())
    }
}

async fn list(State(views): State<Views>) -> Json<FlagList> {
    let Views { node, flags } = views;
    let list = flags.list().into_iter().map(flag).collect();
    let (revision, problem, warnings) = (flags.revision(), flags.problem(), flags.warnings());
    Json(FlagList { node: node.to_string(), revision, problem, warnings, flags: list })
}

async fn one(State(views): State<Views>, Path(key): Path<String>) -> Result<Json<Flag>, Refused> {
    let view = views.flags.view(&key).map(flag);
    let missing =
        || Refused(StatusCode::NOT_FOUND, Failure::NotFound.word(), format!("no flag is named {key:?}"));
    view.map(Json).ok_or_else(missing)
}

async fn change(
    State(views): State<Views>,
    Path(key): Path<String>,
    request: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<Json<Changed>, Refused> {
    let Json(ChangeRequest { variant, percent, tenants, reason, actor, expected_revision, cascade }) =
        request?;
    let to = match variant {
        Some(variant) => Setting::Variant { variant, percent, tenants },
        None => Setting::Default,
    };
    apply(views, flags::Change { key, to, reason, actor: named(actor), expected_revision, cascade }).await
}

async fn kill(
    State(views): State<Views>,
    Path(key): Path<String>,
    request: Result<Json<KillRequest>, JsonRejection>,
) -> Result<Json<Changed>, Refused> {
    let Json(KillRequest { lift, reason, actor, expected_revision }) = request?;
    let to = if lift { Setting::Revive } else { Setting::Kill };
    apply(views, flags::Change { key, to, reason, actor: named(actor), expected_revision, cascade: false })
        .await
}

async fn apply(views: Views, change: flags::Change) -> Result<Json<Changed>, Refused> {
    let flags::Changed { revision, touched } = views.flags.change(change).await?;
    let changed = touched.into_iter().map(|Touched { key, old, new }| Change { key, old, new }).collect();
    Ok(Json(Changed { node: views.node.to_string(), revision, changed }))
}

fn named(actor: String) -> String {
    if actor.is_empty() { "unnamed".into() } else { actor }
}

#[derive(Deserialize)]
struct HistoryQuery {
    key: Option<String>,
    limit: Option<usize>,
}

async fn history(
    State(views): State<Views>,
    Query(HistoryQuery { key, limit }): Query<HistoryQuery>,
) -> Result<Json<History>, Refused> {
    let limit = limit.unwrap_or(HISTORY_DEFAULT).min(HISTORY_MAX);
    let records = views.flags.history(key.as_deref(), limit).await;
    let records = records.map_err(|error| {
        Refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            Failure::Failed.word(),
            format!("the audit cannot be read: {error}"),
        )
    })?;
    Ok(Json(History { node: views.node.to_string(), records }))
}

fn flag(view: View) -> Flag {
    let definition = view.definition.as_deref();
    let requires = definition
        .map(|d| d.requires.iter().map(|(key, variant)| format!("{key}={variant}")).collect::<Vec<_>>());
    let targeting = definition.map(|d| match d.targeting {
        flags::Targeting::None => "none",
        flags::Targeting::Attributes => "attributes",
        flags::Targeting::Percent => "percent",
    });
    Flag {
        key: view.key,
        setting: view.setting,
        variant: view.variant.to_string(),
        source: view.source.to_string(),
        stage: definition.map(|d| d.stage.clone()).unwrap_or_default(),
        killed: view.killed,
        variants: definition.map(|d| d.variants.clone()).unwrap_or_default(),
        default: definition.map(|d| d.default.clone()).unwrap_or_default(),
        requires: requires.unwrap_or_default().join(","),
        targeting: targeting.unwrap_or("none").into(),
        description: definition.map(|d| d.description.clone()).unwrap_or_default(),
    }
}
