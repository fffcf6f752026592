//! An external check of passwords by HTTP, as nginx's mail proxy asks
//! (`auth_http`): a request whose headers say who shows what, and an answer whose
//! headers say whether that is good. Bodies say nothing, and are not read.
//!
//! A service that does not answer, or not as it should, is an outage: nobody's
//! password is wrong for that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use url::Url;
use zeroize::Zeroizing;

use super::CredentialError;
use crate::http_failure::HttpFailure;
use crate::oauth2::is_loopback;
use crate::secret::Secret;

/// The longest time that a refused client waits, whatever the service says.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Connections that wait for the next question.
const MOST_IDLE: usize = 8;
const IDLE: Duration = Duration::from_secs(30);

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct HttpCheckConfig {
    /// https, or http on loopback.
    pub url: Url,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whom its certificate must come from.
    pub tls: Arc<rustls::ClientConfig>,
    /// Servers that an answer may name, as `host:port`, with the URL of each. Others
    /// are not followed.
    pub servers: BTreeMap<String, String>,
}

/// Asks an external service about passwords.
#[derive(Debug)]
pub struct HttpCheck {
    client: reqwest::Client,
    url: Url,
    servers: BTreeMap<String, String>,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpVerdict {
    /// The password is good.
    Admitted {
        /// The user name upstream, where it is another.
        user: Option<String>,
        /// The password upstream, where it is another.
        password: Option<Secret>,
        /// The URL of the server that it names, where that is a listed one.
        upstream: Option<String>,
    },
    /// It is not.
    Refused {
        /// How long the client is to wait before it is told. `None`: it gets no
        /// other try in this session.
        wait: Option<Duration>,
    },
}

impl HttpCheck {
    /// Nothing is asked yet. [`CredentialError::Misconfigured`]: the URL will not do.
    pub fn new(config: HttpCheckConfig) -> Result<Self, CredentialError> {
        let wrong = |problem: &str| Err(CredentialError::Misconfigured(problem.to_owned()));
        match config.url.scheme() {
            "https" => {}
            "http" if is_loopback(&config.url) => {}
            "http" => return wrong("the external check: http:// is for loopback only"),
            _ => return wrong("the external check has an https:// URL"),
        }
        if !config.url.username().is_empty() || config.url.password().is_some() {
            return wrong("the external check: its URL has no user or password");
        }
        let mut tls = (*config.tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .timeout(config.timeout)
            .pool_max_idle_per_host(MOST_IDLE)
            .pool_idle_timeout(IDLE)
            .user_agent("popgate")
            .build();
        match client {
            Ok(client) => Ok(Self {
                client,
                url: config.url,
                servers: config.servers,
            }),
            Err(_) => wrong("no HTTP client can be made"),
        }
    }

    /// Asks whether a password is good. `attempt` counts from 1 in a session; `tls`:
    /// the client's connection is encrypted. Whatever is not a clear answer is
    /// [`CredentialError::Temporary`], never a refusal; a certificate that does not
    /// verify is [`CredentialError::Misconfigured`].
    pub async fn check(
        &self,
        user: &str,
        password: &Secret,
        client: IpAddr,
        attempt: u32,
        tls: bool,
    ) -> Result<HttpVerdict, CredentialError> {
        let mut request = self
            .client
            .get(self.url.clone())
            .header("Auth-Method", "plain")
            .header("Auth-User", encoded(user)?)
            .header("Auth-Pass", encoded(password.reveal())?)
            .header("Auth-Protocol", "pop3")
            .header("Auth-Login-Attempt", attempt)
            .header("Client-IP", client.to_canonical().to_string());
        if tls {
            request = request.header("Auth-SSL", "on");
        }
        let answer = request.send().await.map_err(|error| blame(&error))?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(outage(&format!("HTTP status {}", status.as_u16())));
        }
        verdict(answer.headers(), &self.servers)
    }
}

/// What an answer says. Servers are followed where they are listed: `host:port`, and
/// the URL.
pub(super) fn verdict(
    headers: &HeaderMap,
    servers: &BTreeMap<String, String>,
) -> Result<HttpVerdict, CredentialError> {
    let Some(status) = value(headers, "Auth-Status")? else {
        return Err(outage("no Auth-Status"));
    };
    match status.as_str() {
        "" => Err(outage("an empty Auth-Status")),
        // It wants to be asked again.
        "WAIT" => Err(outage("Auth-Status: WAIT")),
        "OK" => Ok(HttpVerdict::Admitted {
            user: value(headers, "Auth-User")?,
            password: value(headers, "Auth-Pass")?.map(Secret::new),
            upstream: server(headers, servers)?,
        }),
        _ => {
            // For SMTP, but it tells a trouble from a refusal (RFC 5321 §4.2.1).
            let code = value(headers, "Auth-Error-Code")?.unwrap_or_default();
            if code.starts_with('4') {
                return Err(outage(&format!("an Auth-Error-Code for later: {code:.3}")));
            }
            let wait = value(headers, "Auth-Wait")?;
            let wait = wait.and_then(|it| it.parse().ok());
            Ok(HttpVerdict::Refused {
                wait: wait.map(|it| Duration::from_secs(it).min(LONGEST_WAIT)),
            })
        }
    }
}

/// The URL of the server that the answer names.
fn server(
    headers: &HeaderMap,
    servers: &BTreeMap<String, String>,
) -> Result<Option<String>, CredentialError> {
    let host = value(headers, "Auth-Server")?;
    let port = value(headers, "Auth-Port")?;
    let (Some(host), Some(port)) = (host, port) else {
        return Ok(None);
    };
    Ok(servers.get(&format!("{host}:{port}")).cloned())
}

/// A header's value, if it is there. One that comes twice, or is no text, is none
/// that anybody should act on.
fn value(headers: &HeaderMap, name: &str) -> Result<Option<String>, CredentialError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes());
    match (text, values.next()) {
        (Ok(text), None) if !text.contains(char::is_control) => Ok(Some(text.to_owned())),
        _ => Err(outage(&format!("an unclear {name}"))),
    }
}

/// A value as nginx writes it: blanks, control characters, percent and plus signs
/// are percent-encoded; here also what is not ASCII.
fn encoded(text: &str) -> Result<HeaderValue, CredentialError> {
    let mut encoded = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for octet in text.bytes() {
        match octet {
            b'%' | b'+' | ..=b' ' | 0x7f.. => {
                encoded.extend(format!("%{octet:02X}").bytes());
            }
            octet => encoded.push(octet),
        }
    }
    let value = HeaderValue::from_bytes(&encoded);
    let mut value = value.map_err(|_| outage("a user name or password that no header holds"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn outage(problem: &str) -> CredentialError {
    CredentialError::Temporary(format!("the external check: {problem}"))
}

/// What it means that there is no answer.
fn blame(error: &reqwest::Error) -> CredentialError {
    match HttpFailure::of(error) {
        HttpFailure::Certificate(tls) => CredentialError::Misconfigured(format!(
            "the external check: its certificate does not verify: {tls}"
        )),
        HttpFailure::TimedOut => outage("no answer in time"),
        HttpFailure::NoConnection => outage("cannot connect"),
        HttpFailure::Tls(_) | HttpFailure::Lost => outage("no answer"),
    }
}

#[cfg(test)]
mod tests;
