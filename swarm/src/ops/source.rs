//! Where an import comes from: a file, stdin, or a URL, an MCP registry above all.
//!
//! A registry is read page by page: at most [`PAGES_MAX`] pages and [`import::MAX_ENTRIES`] entries,
//! within the time that the operator gives. Redirects are not followed: an answer of another place
//! is not what was asked for.

use crate::{
    client::{Http, HttpError},
    error::{CliError, Failure},
    import::{self, Form, Import, Origin},
    url::encoded,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Most pages read of one registry.
const PAGES_MAX: usize = 100;
/// Where a registry has its list.
const LIST: &str = "/v0.1/servers";

/// Reads a file, `-` for stdin, or an `http://` URL.
pub(super) async fn read(source: &str, form: Option<Form>, timeout: Duration) -> Result<Import, CliError> {
    if source == "-" {
        return stdin(form);
    }
    if source.contains("://") {
        let reading = url(source, form, timeout);
        let late = || CliError::new(Failure::TimedOut, format!("{source} was not read within {timeout:?}"));
        return tokio::time::timeout(timeout, reading).await.map_err(|_| late())?;
    }
    import::read_as(Path::new(source), form).map_err(unusable)
}

fn unusable(error: import::ImportError) -> CliError {
    let failure = match &error {
        import::ImportError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::NotFound
        }
        _ => Failure::Failed,
    };
    CliError::new(failure, error.to_string())
}

fn stdin(form: Option<Form>) -> Result<Import, CliError> {
    let mut text = String::new();
    let mut limited = std::io::stdin().lock().take(import::MAX_BYTES + 1);
    limited.read_to_string(&mut text).map_err(anyhow::Error::from)?;
    if text.len() as u64 > import::MAX_BYTES {
        return Err(unusable(import::ImportError::TooLarge { path: "stdin".into() }));
    }
    let directory = std::env::current_dir().unwrap_or_default();
    import::parse_here(&text, Path::new("stdin"), form, directory).map_err(unusable)
}

async fn url(source: &str, form: Option<Form>, timeout: Duration) -> Result<Import, CliError> {
    let first = Page::first(source)?;
    let http = Http::pooled();
    let text = first.fetch(&http, timeout).await?;
    if !first.is_list() {
        return import::parse_here(&text, Path::new(source), form, PathBuf::new()).map_err(unusable);
    }
    let servers = pages(&http, first, text, timeout).await?;
    let origin = Origin { directory: PathBuf::new(), environment: &|name| std::env::var(name).ok() };
    Ok(import::published(&servers, &origin))
}

/// The entries of the first page and of all that follow it.
async fn pages(
    http: &Http,
    mut page: Page,
    mut text: String,
    timeout: Duration,
) -> Result<Vec<Value>, CliError> {
    let (mut servers, mut cursors) = (Vec::new(), BTreeSet::new());
    for _ in 0..PAGES_MAX {
        let (entries, next) = page.parse(&text)?;
        servers.extend(entries);
        if servers.len() > import::MAX_ENTRIES {
            let words = format!("{} lists more than {} servers", page.place(), import::MAX_ENTRIES);
            return Err(CliError::new(Failure::Failed, words).hint("narrow it: ?search=WORD"));
        }
        let Some(next) = next else { return Ok(servers) };
        if !cursors.insert(next.clone()) {
            let words = format!("{} goes in circles: it gave the cursor {next:?} twice", page.place());
            return Err(CliError::new(Failure::Failed, words));
        }
        page = page.behind(&next)?;
        text = page.fetch(http, timeout).await?;
    }
    let words = format!("{} has more than {PAGES_MAX} pages", page.place());
    Err(CliError::new(Failure::Failed, words).hint("narrow it: ?search=WORD"))
}

/// One URL that is asked.
struct Page {
    uri: Uri,
}

impl Page {
    /// A URL without a path is a registry; its list is asked for the latest versions.
    fn first(source: &str) -> Result<Page, CliError> {
        let wrong = |what: &str| CliError::new(Failure::Usage, format!("`{source}` {what}"));
        let uri: Uri = source.parse().map_err(|_| wrong("is not a url"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                let hint =
                    format!("let another program fetch it: curl -fsS '{source}' | swarm registry import -");
                return Err(wrong("cannot be read: there is no TLS in this version").hint(hint));
            }
            _ => return Err(wrong("is not an http:// url")),
        }
        let path = match uri.path().trim_end_matches('/') {
            "" => LIST,
            path => path,
        };
        let page = Page {
            uri: with(&uri, path, uri.query().unwrap_or_default()).ok_or_else(|| wrong("is not a url"))?,
        };
        if !page.is_list() {
            return Ok(page);
        }
        let query = page.uri.query().unwrap_or_default();
        let missing = [("limit", "100"), ("version", "latest")].into_iter();
        let missing = missing.filter(|(key, _)| !pairs(query).any(|pair| pair.0 == *key));
        let all = pairs(query).chain(missing).map(|(key, value)| format!("{key}={value}"));
        let query = all.collect::<Vec<_>>().join("&");
        let uri = with(&page.uri, page.uri.path(), &query).ok_or_else(|| wrong("is not a url"))?;
        Ok(Page { uri })
    }

    /// The same list behind a cursor.
    fn behind(&self, cursor: &str) -> Result<Page, CliError> {
        let query = self.uri.query().unwrap_or_default();
        let others = pairs(query).filter(|(key, _)| *key != "cursor");
        let mut all: Vec<String> = others.map(|(key, value)| format!("{key}={value}")).collect();
        all.push(format!("cursor={}", encoded(cursor)));
        let uri = with(&self.uri, self.uri.path(), &all.join("&"));
        let words = || format!("{} gave a cursor that fits into no url", self.place());
        uri.map(|uri| Page { uri }).ok_or_else(|| CliError::new(Failure::Failed, words()))
    }

    fn is_list(&self) -> bool {
        self.uri.path().ends_with(LIST)
    }

    /// Without the query, for people.
    fn place(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("http://{authority}{}", self.uri.path())
    }

    async fn fetch(&self, http: &Http, timeout: Duration) -> Result<String, CliError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let reply = http.send(Method::GET, &self.uri.to_string(), headers, Bytes::new(), timeout).await;
        let reply = reply.map_err(not_read)?;
        let (status, to) = (reply.status, reply.headers.get(header::LOCATION).cloned());
        if status.is_redirection() {
            let to = to.as_ref().and_then(|to| to.to_str().ok()).unwrap_or("another place");
            let words = format!("{} answered {status}: it is at {to}", self.place());
            return Err(
                CliError::new(Failure::Failed, words).hint("redirects are not followed; give that url")
            );
        }
        let body = reply.whole(timeout).await.map_err(not_read)?;
        if status != StatusCode::OK {
            return Err(self.answered(status, &body));
        }
        let words = |_| CliError::new(Failure::Failed, format!("{} answered no text", self.place()));
        String::from_utf8(body.to_vec()).map_err(words)
    }

    /// A registry says why in `error`.
    fn answered(&self, status: StatusCode, body: &[u8]) -> CliError {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let why = body["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        let failure = if status == StatusCode::NOT_FOUND { Failure::NotFound } else { Failure::Failed };
        CliError::new(failure, format!("{} answered {status}{why}", self.place()))
    }

    /// The entries of a page, and the cursor of the next.
    fn parse(&self, text: &str) -> Result<(Vec<Value>, Option<String>), CliError> {
        let wrong = |why: &str| {
            let words = format!("{} did not answer as an MCP registry does: {why}", self.place());
            CliError::new(Failure::Failed, words)
        };
        let mut page: Value = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let Value::Array(servers) = page["servers"].take() else {
            return Err(wrong("there is no list `servers`"));
        };
        let next = &page["metadata"]["nextCursor"];
        match next {
            Value::Null => Ok((servers, None)),
            Value::String(next) => Ok((servers, Some(next.clone()).filter(|next| !next.is_empty()))),
            _ => Err(wrong("`metadata.nextCursor` is not a string")),
        }
    }
}

fn with(uri: &Uri, path: &str, query: &str) -> Option<Uri> {
    let rest = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let authority = uri.authority()?.as_str();
    Uri::builder().scheme("http").authority(authority).path_and_query(rest).build().ok()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn not_read(error: HttpError) -> CliError {
    CliError { hint: None, ..super::not_reached(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(source: &str) -> String {
        Page::first(source).map_or_else(|error| error.message, |page| page.uri.to_string())
    }

    #[test]
    fn a_registry_is_asked_for_its_latest_versions() {
        let list = "http://h:1/v0.1/servers?limit=100&version=latest";
        assert_eq!(first("http://h:1"), list);
        assert_eq!(first("http://h:1/v0.1/servers/"), list);
        let narrowed = "http://h/sub/v0.1/servers?search=git&limit=5&version=latest";
        assert_eq!(first("http://h/sub/v0.1/servers?search=git&limit=5"), narrowed);
        assert_eq!(first("http://h/files/mcp.json?a=1"), "http://h/files/mcp.json?a=1");
    }

    #[test]
    fn what_cannot_be_asked_is_said_before_anything_is_sent() {
        assert_eq!(first("ftp://h/x"), "`ftp://h/x` is not an http:// url");
        assert_eq!(first("http://"), "`http://` is not a url");
        let error = Page::first("https://registry.example/v0.1/servers").err().expect("refused");
        assert_eq!(error.failure, Failure::Usage);
        assert!(error.hint.expect("a hint").ends_with("| swarm registry import -"));
    }

    #[test]
    fn a_cursor_replaces_the_one_before_it() {
        let page = Page::first("http://h?search=x").expect("a page");
        let second = page.behind("a/b+c=").expect("a page");
        assert!(second.uri.to_string().ends_with("search=x&limit=100&version=latest&cursor=a%2Fb%2Bc%3D"));
        let third = second.behind("d").expect("a page");
        assert!(third.uri.to_string().ends_with("version=latest&cursor=d"));
    }

    #[test]
    fn a_page_that_is_none_is_said_to_be_none() {
        let page = Page::first("http://h").expect("a page");
        let refusal = |text: &str| page.parse(text).expect_err("refused").message;
        let words = "http://h/v0.1/servers did not answer as an MCP registry does: ";
        assert!(refusal("<html>").starts_with(words));
        assert_eq!(refusal("{}"), format!("{words}there is no list `servers`"));
        assert_eq!(
            refusal(r#"{"servers": [], "metadata": {"nextCursor": 3}}"#),
            format!("{words}`metadata.nextCursor` is not a string")
        );
        assert_eq!(
            page.parse(r#"{"servers": [1], "metadata": {"nextCursor": ""}}"#).expect("a page").1,
            None
        );
    }
}
