//! What only Codex's `config.toml` has: secrets named by the environment variable they are in.

use super::fields::Fields;
use std::collections::BTreeMap;

/// `http_headers`, `env_http_headers` and `bearer_token_env_var`.
pub(super) fn headers(fields: &Fields<'_>) -> Result<BTreeMap<String, String>, String> {
    for (key, instead) in [("headers", "http_headers"), ("bearer_token", "bearer_token_env_var")] {
        if fields.fields.contains_key(key) {
            return Err(format!("Codex does not read `{key}`; it is written as `{instead}`"));
        }
    }
    let mut headers = fields.map("http_headers")?;
    for (header, variable) in fields.map("env_http_headers")? {
        headers.insert(header, fields.scope.environment(&variable)?);
    }
    if let Some(variable) = fields.text(&["bearer_token_env_var"])? {
        let token = fields.scope.environment(&variable)?;
        headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
    }
    Ok(headers)
}

/// `env_vars`: variables that are handed on as they are.
pub(super) fn forwarded(fields: &Fields<'_>) -> Result<BTreeMap<String, String>, String> {
    let names = fields.list("env_vars")?.into_iter();
    names.map(|name| fields.scope.environment(&name).map(|value| (name, value))).collect()
}
