//! Plain HTTP/1.1 requests with a deadline and a size limit.

use crate::url::reachable;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{HttpConnector, HttpInfo},
    },
    rt::{TokioExecutor, TokioTimer},
};
use std::{net::SocketAddr, time::Duration};

/// Most bytes taken from one answer.
pub(super) const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a url that can be asked.
    #[error("`{url}` is not an http:// url")]
    Url {
        /// As given.
        url: String,
    },
    /// Nobody listens there: nothing was sent.
    #[error("cannot connect to {authority}: {cause}")]
    Connect {
        /// host:port.
        authority: String,
        /// The system's words.
        cause: String,
    },
    /// The connection broke on the way: the request may have been served.
    #[error("the connection to {authority} broke: {cause}")]
    Broken {
        /// host:port.
        authority: String,
        /// The system's words.
        cause: String,
    },
    /// No answer within the deadline.
    #[error("no answer from {authority} within {deadline:?}")]
    Timeout {
        /// host:port.
        authority: String,
        /// How long it waited.
        deadline: Duration,
    },
    /// The answer is larger than 16 MiB.
    #[error("the answer of {authority} is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLarge {
        /// host:port.
        authority: String,
    },
}

impl HttpError {
    /// Whether the request surely did not reach the other side.
    pub fn unsent(&self) -> bool {
        matches!(self, HttpError::Url { .. } | HttpError::Connect { .. })
    }
}

/// The head of an answer, its body still to come.
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The local end of the connection it came over.
    pub local: Option<SocketAddr>,
    authority: String,
    body: Incoming,
}

impl Reply {
    /// The media type without parameters, lower-case.
    pub fn media_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| broken(&self.authority, &error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body, up to 16 MiB, within `deadline`.
    pub async fn whole(mut self, deadline: Duration) -> Result<Bytes, HttpError> {
        let authority = self.authority.clone();
        let read = async {
            let mut whole = BytesMut::new();
            while let Some(chunk) = self.chunk().await? {
                if whole.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(HttpError::TooLarge { authority: self.authority.clone() });
                }
                whole.extend_from_slice(&chunk);
            }
            Ok(whole.freeze())
        };
        match tokio::time::timeout(deadline, read).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout { authority, deadline }),
        }
    }
}

/// Sends requests.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    /// Keeps connections for the next request.
    pub fn pooled() -> Http {
        Http::with_idle(8)
    }

    /// A connection per request: a load balancer sees each one anew.
    pub fn unpooled() -> Http {
        Http::with_idle(0)
    }

    fn with_idle(idle: usize) -> Http {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(idle)
            .build(connector);
        Http { client }
    }

    /// Sends one request and waits up to `deadline` for the head of its answer.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reply, HttpError> {
        let (uri, authority) = address(url)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let answer = match tokio::time::timeout(deadline, self.client.request(request)).await {
            Err(_) => return Err(HttpError::Timeout { authority, deadline }),
            Ok(Err(error)) => return Err(refused(&authority, &error)),
            Ok(Ok(answer)) => answer,
        };
        let local = answer.extensions().get::<HttpInfo>().map(HttpInfo::local_addr);
        let (head, body) = answer.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, local, authority, body })
    }
}

/// Where a URL leads; what listens on all interfaces of this machine is met on loopback.
fn address(url: &str) -> Result<(Uri, String), HttpError> {
    let wrong = || HttpError::Url { url: url.to_owned() };
    let uri: Uri = reachable(url, None).parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?.to_string();
    Ok((uri, authority))
}

fn refused(authority: &str, error: &Error) -> HttpError {
    if error.is_connect() {
        return HttpError::Connect { authority: authority.to_owned(), cause: root_cause(error) };
    }
    broken(authority, error)
}

fn broken(authority: &str, error: &dyn std::error::Error) -> HttpError {
    HttpError::Broken { authority: authority.to_owned(), cause: root_cause(error) }
}

/// The innermost error says what happened; the wrappers only say where.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().to_lowercase()
}
