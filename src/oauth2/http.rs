//! One request and its answer: bounded in time and size, without redirects, to
//! https, or http on loopback.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, StatusCode};
use tokio::time::timeout;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::TokenError;
use crate::http_failure::HttpFailure;

/// Octets of the largest answer that is read.
const LARGEST_ANSWER: usize = 256 * 1024;
const CONNECT: Duration = Duration::from_secs(10);
/// For a `Retry-After` that says neither seconds nor a date, and the longest that
/// is obeyed.
const SOME_TIME: Duration = Duration::from_secs(60);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What an HTTP server said.
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: Zeroizing<Vec<u8>>,
}

/// Each request has a connection of its own: no answer can be taken for that to
/// somebody else's, and none is lost because a connection had died at rest (which
/// would cost a refresh token that is good once).
pub(super) struct Http {
    client: reqwest::Client,
    patience: Duration,
}

impl Http {
    /// A request takes no longer than `patience`.
    pub fn new(tls: &Arc<rustls::ClientConfig>, patience: Duration) -> Result<Self, TokenError> {
        let mut tls = (**tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(0)
            .user_agent("popgate")
            .build()
            .map_err(|_| TokenError::Misconfigured("no HTTP client can be made".into()))?;
        Ok(Self { client, patience })
    }

    /// POSTs a form (RFC 6749 appendix B). `authorization` is shown as it is.
    pub async fn post(
        &self,
        url: &Url,
        form: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, TokenError> {
        let mut request = Request::new(Method::POST, url.clone());
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        *request.body_mut() = Some(form.into());
        self.send(request, authorization).await
    }

    /// GETs JSON.
    pub async fn get(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, TokenError> {
        self.send(Request::new(Method::GET, url.clone()), authorization)
            .await
    }

    async fn send(
        &self,
        mut request: Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, TokenError> {
        check(request.url())?;
        request.headers_mut().insert(ACCEPT, JSON);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let answer = match timeout(self.patience, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(temporary("no answer in time")),
        };
        answer.map_err(|error| at(&host, error))
    }

    async fn exchange(&self, request: Request) -> Result<Answer, TokenError> {
        let response = self.client.execute(request).await;
        let mut response = response.map_err(|error| failed(&error))?;
        let status = response.status();
        if status.is_redirection() {
            let reason = format!("a redirect (HTTP status {})", status.as_u16());
            return Err(TokenError::Misconfigured(reason));
        }
        let retry_after = retry_after(response.headers());
        let mut body = Zeroizing::new(Vec::new());
        while let Some(octets) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + octets.len() > LARGEST_ANSWER {
                return Err(temporary("an answer that is too large"));
            }
            body.extend_from_slice(&octets);
        }
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }
}

/// `Authorization: Bearer` (RFC 6750 §2.1); `None`: the token is none.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

/// A header that is never printed.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Secrets go by https only, and by http within this machine.
pub(super) fn check(url: &Url) -> Result<(), TokenError> {
    let reason = match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => "has a user or a password",
        _ if url.fragment().is_some() => "has a fragment",
        "https" => return Ok(()),
        "http" if is_loopback(url) => return Ok(()),
        _ => "is neither https nor http on loopback",
    };
    let host = url.host_str().unwrap_or_default();
    Err(TokenError::Misconfigured(format!(
        "a URL at {host:?} {reason}"
    )))
}

/// Whether a URL leads to this machine, without asking a resolver.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// RFC 9110 §10.2.3.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let value = value.to_str().unwrap_or_default().trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).map_or(SOME_TIME, |date| {
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

pub(super) fn temporary(reason: &str) -> TokenError {
    TokenError::Temporary {
        reason: reason.to_owned(),
        retry_after: None,
    }
}

/// Says where it failed.
fn at(host: &str, error: TokenError) -> TokenError {
    match error {
        TokenError::Temporary {
            reason,
            retry_after,
        } => TokenError::Temporary {
            reason: format!("{host}: {reason}"),
            retry_after,
        },
        TokenError::Misconfigured(reason) => TokenError::Misconfigured(format!("{host}: {reason}")),
        error => error,
    }
}

/// A certificate that does not verify needs somebody; all else may pass.
fn failed(error: &reqwest::Error) -> TokenError {
    match HttpFailure::of(error) {
        HttpFailure::Certificate(tls) => {
            let reason: String = format!("TLS: {tls}").escape_debug().take(160).collect();
            TokenError::Misconfigured(reason)
        }
        HttpFailure::Tls(_) => temporary("TLS failed"),
        HttpFailure::TimedOut => temporary("no connection in time"),
        HttpFailure::NoConnection => temporary("cannot connect"),
        HttpFailure::Lost => temporary("connection lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_where_nobody_listens() {
        for good in [
            "https://login.example.org/token",
            "https://192.0.2.1/token?p=1",
            "http://127.0.0.1:8080/token",
            "http://127.9.9.9/",
            "http://[::1]:8080/",
            "http://localhost:1/",
        ] {
            assert_eq!(check(&Url::parse(good).unwrap()), Ok(()), "{good}");
        }
        for bad in [
            "http://login.example.org/token",
            "http://192.0.2.1/",
            "http://[::ffff:192.0.2.1]/",
            "http://localhost.example.org/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "https://user@login.example.org/",
            "https://:secret@login.example.org/",
            "https://login.example.org/#token",
        ] {
            assert!(check(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn retry_after_is_bounded() {
        let said = |value: &'static str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(value))];
            retry_after(&headers.into_iter().collect())
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("99999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(said("soon"), Some(SOME_TIME));
        assert_eq!(said("-1"), Some(SOME_TIME));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(
            said("Fri, 31 Dec 9999 23:59:59 GMT"),
            Some(LONGEST_RETRY_AFTER)
        );
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
