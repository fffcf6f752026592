//! HTTP with credentials: bounded answers, no redirects but for the session
//! resource, and one place where statuses become errors.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION,
    RANGE,
};
use reqwest::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;
use zeroize::Zeroizing;

use super::clients::{Clients, Lane};
use super::config::Config;
use super::rounds::Rounds;
use super::{Shared, retry_after};
use crate::http_failure::HttpFailure;
use crate::metrics::Metrics;
use crate::sasl::{Credentials, Digest};
use crate::upstream::{Reason, UpstreamError};

/// Redirects followed on the way to the session resource.
const MOST_REDIRECTS: usize = 3;
/// How long a connection that rested may be silent before a new one is tried.
const RESTED: Duration = Duration::from_secs(3);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Octets of a session resource.
const LARGEST_RESOURCE: usize = 1024 * 1024;
/// Octets read of the body of an error.
const LARGEST_PROBLEM: usize = 16 * 1024;

/// HTTP for one session of one account: its connections carry no other
/// account's requests. They close with it, or rest for the same credentials.
pub(super) struct Http {
    clients: Clients,
    config: Arc<Config>,
    shared: Arc<Shared>,
    rounds: Arc<Rounds>,
    account: String,
    /// Shown with each request.
    authorization: HeaderValue,
    whose: Option<Digest>,
}

impl Http {
    /// Requests that show these credentials, over connections that rested for
    /// them, if there are any.
    pub fn new(
        config: Arc<Config>,
        shared: Arc<Shared>,
        rounds: Arc<Rounds>,
        credentials: &Credentials,
    ) -> Result<Self, UpstreamError> {
        let authorization = authorization(credentials)?;
        let whose = shared.resting.whose(credentials);
        let rested = whose.and_then(|whose| shared.resting.take(whose));
        Ok(Self {
            clients: Clients::new(&config, rested)?,
            config,
            shared,
            rounds,
            account: credentials.mailbox().to_owned(),
            authorization,
            whose,
        })
    }

    /// The session is over: its connections may rest.
    pub fn rest(&self, metrics: &Metrics) {
        if let (Some(whose), Some(client)) = (self.whose, self.clients.rest()) {
            let terms = (self.config.economy.rest, metrics);
            self.shared.resting.put(whose, &self.account, client, terms);
        }
    }

    /// The server asked to be left alone for what was downloaded ahead.
    pub fn note_too_many(&self) {
        self.shared.note_too_many(&self.account);
    }

    /// Whether it did so a short time ago.
    pub fn is_too_many(&self) -> bool {
        self.shared.is_too_many(&self.account)
    }

    /// Whether one connection carries many requests at once.
    pub fn is_multiplexed(&self) -> bool {
        self.clients.is_multiplexed()
    }

    /// GETs the session resource. It may be redirected to, within the allowed
    /// origins. Returns its own URL too, against which it is to be read.
    pub async fn resource(&self, url: &Url) -> Result<(Url, Vec<u8>), UpstreamError> {
        let deadline = self.deadline();
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            self.check(&url)?;
            let mut request = self.request(Method::GET, &url);
            request.headers_mut().insert(ACCEPT, JSON);
            let response = self.send(request, Lane::Asked, deadline).await?;
            if response.status().is_redirection() {
                let location = response.headers().get(LOCATION);
                let location = location.and_then(|it| it.to_str().ok());
                let next = location.and_then(|it| url.join(it).ok());
                url = next.ok_or_else(|| UpstreamError::protocol("a redirect to nowhere"))?;
                continue;
            }
            if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
                let reason = "there is no JMAP session resource at this URL";
                return Err(UpstreamError::Misconfigured(reason.into()));
            }
            let response = self.succeeded(response, deadline).await?;
            let most = LARGEST_RESOURCE.min(self.config.limits.answer);
            let body = self.body(response, most, deadline).await?;
            return Ok((url, body));
        }
        let reason = "too many redirects to the session resource";
        Err(UpstreamError::Misconfigured(reason.into()))
    }

    /// POSTs JSON to the API.
    pub async fn post(&self, url: &Url, json: Vec<u8>) -> Result<Vec<u8>, UpstreamError> {
        self.check(url)?;
        let deadline = self.deadline();
        let mut request = self.request(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        request.headers_mut().insert(ACCEPT, JSON);
        *request.body_mut() = Some(json.into());
        let response = self.send(request, Lane::Asked, deadline).await?;
        let response = self.succeeded(response, deadline).await?;
        let most = self.config.limits.answer;
        self.body(response, most, deadline).await
    }

    /// GETs a blob, or so many octets of it from a first one on.
    pub async fn download(
        &self,
        url: &Url,
        part: Option<(u64, u64)>,
        lane: Lane,
    ) -> Result<Response, UpstreamError> {
        self.check(url)?;
        let deadline = self.deadline();
        let mut request = self.request(Method::GET, url);
        if let Some((first, octets)) = part {
            let last = first.saturating_add(octets).saturating_sub(1);
            let range = HeaderValue::from_str(&format!("bytes={first}-{last}"));
            let range = range.map_err(|_| UpstreamError::protocol("a range that is none"))?;
            request.headers_mut().insert(RANGE, range);
        }
        let response = self.send(request, lane, deadline).await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(UpstreamError::Gone),
            _ => self.succeeded(response, deadline).await,
        }
    }

    /// The next octets of a body. `None` is the end that HTTP saw. What is
    /// waited for them is taken from `patience`.
    pub async fn chunk(
        &self,
        response: &mut Response,
        patience: &mut Duration,
    ) -> Result<Option<Bytes>, UpstreamError> {
        let began = Instant::now();
        let silence = self.config.timeouts.silence.min(*patience);
        let chunk = match timeout(silence, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(UpstreamError::temporary("the body does not come in time")),
        };
        *patience = patience.saturating_sub(began.elapsed());
        if let Ok(None) = chunk {
            // The connection goes back to the others before the next request
            // looks for one.
            tokio::task::yield_now().await;
        }
        chunk
    }

    /// How long so many octets may take altogether, the time apart that they
    /// wait for the client: a server that drips is no better than one that
    /// stands still.
    pub fn patience(&self, octets: u64) -> Duration {
        const SLOWEST: u64 = 1024;
        self.config.timeouts.command + Duration::from_secs(octets / SLOWEST)
    }

    /// How long one request may take.
    pub fn command_timeout(&self) -> Duration {
        self.config.timeouts.command
    }

    /// Octets of the largest answer that is read.
    pub fn largest_answer(&self) -> usize {
        self.config.limits.answer
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.timeouts.command
    }

    /// Whether credentials may go to `url`.
    fn check(&self, url: &Url) -> Result<(), UpstreamError> {
        if self.config.origins.allow(url) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or("no host");
        let reason = "the server names an origin that is not in trusted_hosts";
        Err(UpstreamError::Misconfigured(Reason::quoting(reason, host)))
    }

    fn request(&self, method: Method, url: &Url) -> Request {
        let mut request = Request::new(method, url.clone());
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request
    }

    /// Sends a request, and waits until its answer begins.
    async fn send(
        &self,
        request: Request,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        self.shared.pauses.check(&self.account)?;
        let sent = self.rounds.sent();
        let _counted = self.clients.begin(lane);
        let response = self.send_once_or_again(request, lane, deadline).await?;
        self.rounds.answered(sent);
        self.clients.answered(response.version());
        Ok(response)
    }

    /// A connection that died at rest is replaced. Only requests of a login,
    /// which change nothing, come over one that has given no answer yet.
    async fn send_once_or_again(
        &self,
        request: Request,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let patience = || deadline.min(Instant::now() + self.config.timeouts.silence);
        let client = self.clients.client(&self.config, lane)?;
        let again = request.try_clone().filter(|_| self.clients.is_unproven());
        let Some(again) = again else {
            return match timeout_at(patience(), client.execute(request)).await {
                Ok(answered) => answered.map_err(|error| failed(&error)),
                Err(_) => Err(UpstreamError::temporary("no answer in time")),
            };
        };
        let patience_at_first = patience().min(Instant::now() + RESTED);
        if let Ok(Ok(response)) = timeout_at(patience_at_first, client.execute(request)).await {
            return Ok(response);
        }
        let client = self.clients.renew(&self.config)?;
        match timeout_at(patience(), client.execute(again)).await {
            Ok(answered) => answered.map_err(|error| failed(&error)),
            Err(_) => Err(UpstreamError::temporary("no answer in time")),
        }
    }

    /// The answer, if it is a success; else the error that its status means.
    async fn succeeded(
        &self,
        response: Response,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let status = response.status();
        if status.is_success() {
            // Sizes and limits are those of what is sent.
            let encoding = response.headers().get(CONTENT_ENCODING);
            if encoding.is_some_and(|it| it != "identity" && !it.is_empty()) {
                return Err(UpstreamError::protocol(
                    "a Content-Encoding nobody asked for",
                ));
            }
            return Ok(response);
        }
        let reason = Reason::from(format!("HTTP status {}", status.as_u16()).as_str());
        match status {
            StatusCode::UNAUTHORIZED => Err(UpstreamError::Authentication),
            StatusCode::FORBIDDEN => Err(UpstreamError::Misconfigured(reason)),
            StatusCode::BAD_REQUEST => Err(self.problem(response, deadline).await),
            status if status.is_redirection() => {
                let reason = "a redirect where only the session resource may have one";
                Err(UpstreamError::Misconfigured(reason.into()))
            }
            status if status.is_server_error() || is_passing(status) => {
                let retry_after = retry_after::in_headers(response.headers());
                if let Some(wait) = retry_after {
                    self.shared.pauses.begin(&self.account, wait);
                }
                Err(UpstreamError::Temporary {
                    reason,
                    retry_after,
                })
            }
            _ => Err(UpstreamError::Protocol(reason)),
        }
    }

    /// What a 400 means (RFC 8620 §3.6.1).
    async fn problem(&self, response: Response, deadline: Instant) -> UpstreamError {
        #[derive(serde::Deserialize)]
        struct Problem {
            r#type: String,
        }
        let body = match self.body(response, LARGEST_PROBLEM, deadline).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let problem = serde_json::from_slice::<Problem>(&body);
        let kind = problem.map(|problem| problem.r#type).unwrap_or_default();
        let reason = Reason::quoting("HTTP status 400", &kind);
        match kind.as_str() {
            "urn:ietf:params:jmap:error:limit" => UpstreamError::temporary(reason),
            "urn:ietf:params:jmap:error:unknownCapability" => UpstreamError::Misconfigured(reason),
            _ => UpstreamError::Protocol(reason),
        }
    }

    /// A whole body of at most `most` octets.
    async fn body(
        &self,
        mut response: Response,
        most: usize,
        deadline: Instant,
    ) -> Result<Vec<u8>, UpstreamError> {
        let too_large = || UpstreamError::protocol("an answer that is too large");
        let announced = response.content_length();
        if announced.is_some_and(|octets| octets > most as u64) {
            return Err(too_large());
        }
        let mut patience = deadline.saturating_duration_since(Instant::now());
        let mut body = Vec::new();
        while let Some(octets) = self.chunk(&mut response, &mut patience).await? {
            if body.len() + octets.len() > most {
                return Err(too_large());
            }
            body.extend_from_slice(&octets);
        }
        Ok(body)
    }
}

/// Whether the same request may succeed later.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::NOT_FOUND
            | StatusCode::GONE
    )
}

/// Basic (RFC 7617) or Bearer (RFC 6750).
fn authorization(credentials: &Credentials) -> Result<HeaderValue, UpstreamError> {
    let value = match credentials {
        // Not the password's fault, as little as AUTHORIZATIONFAILED is over IMAP.
        Credentials::Password {
            authorize_as: Some(_),
            ..
        } => {
            let reason = "JMAP knows no login on behalf of another user";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        // A colon would end the name (RFC 7617 §2).
        Credentials::Password { user, .. } if user.contains(':') => {
            return Err(UpstreamError::Authentication);
        }
        Credentials::Password { user, password, .. } => {
            let pair = Zeroizing::new(format!("{user}:{}", password.reveal()));
            let engine = base64::engine::general_purpose::STANDARD;
            let encoded = Zeroizing::new(engine.encode(pair.as_bytes()));
            Zeroizing::new(format!("Basic {}", *encoded))
        }
        Credentials::Bearer { token, .. } => Zeroizing::new(format!("Bearer {}", token.reveal())),
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| UpstreamError::Authentication)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request that came to no answer. A certificate that does not verify is for
/// the operator, anything else may be an outage. The error's own text is not
/// used: it may quote the URL.
fn failed(error: &reqwest::Error) -> UpstreamError {
    match HttpFailure::of(error) {
        HttpFailure::Certificate(tls) => {
            UpstreamError::Misconfigured(Reason::quoting("TLS", &format!("{tls:?}")))
        }
        HttpFailure::Tls(tls) => UpstreamError::temporary(Reason::quoting("TLS", &tls.to_string())),
        HttpFailure::TimedOut => UpstreamError::temporary("no connection in time"),
        HttpFailure::NoConnection => UpstreamError::temporary("cannot connect"),
        HttpFailure::Lost => UpstreamError::temporary("connection lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, authorize_as: Option<&str>) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            authorize_as: authorize_as.map(str::to_owned),
            password: "secret".into(),
        }
    }

    #[test]
    fn credentials_as_a_header() {
        let value = authorization(&password("alice", None)).unwrap();
        assert_eq!(value, "Basic YWxpY2U6c2VjcmV0");
        assert!(value.is_sensitive());
        let token = Credentials::Bearer {
            user: "alice".to_owned(),
            token: "abc".into(),
        };
        assert_eq!(authorization(&token).unwrap(), "Bearer abc");
    }

    #[test]
    fn credentials_that_no_header_can_say() {
        let error = authorization(&password("al:ice", None)).unwrap_err();
        assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
        let error = authorization(&password("alice", Some("bob"))).unwrap_err();
        assert!(
            matches!(error, UpstreamError::Misconfigured(_)),
            "{error:?}"
        );
    }
}
