//! Autoconfiguration of mail clients: whoever types an address and a password
//! finds the POP3 server by it.
//!
//! Two formats, for the domains that are configured and no others: Mozilla's
//! (`config-v1.1.xml`, which Thunderbird, Evolution, K-9 and others read), and
//! Outlook's Autodiscover in plain XML (POX). What is announced is TLS from the
//! first octet, then STLS; never a login in the clear (RFC 8314 §3). These
//! paths are for everybody, and so is all that they say.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt;

mod address;
#[cfg(fuzzing)]
pub mod fuzzing;
mod mozilla;
mod outlook;
mod xml;

pub use address::domain;

use address::Address;

/// Where Mozilla's format is asked for: on `autoconfig.DOMAIN`, and on the
/// domain itself.
const MOZILLA: [&str; 2] = [
    "/mail/config-v1.1.xml",
    "/.well-known/autoconfig/mail/config-v1.1.xml",
];

/// Where Outlook asks. Clients write it in several ways, for IIS does not mind.
const OUTLOOK: &str = "/autodiscover/autodiscover.xml";

/// The largest request of Outlook's that is read, in octets.
const LARGEST_BODY: usize = 16 * 1024;

/// Octets of a larger one that are thrown away, so that the client has done
/// writing when the answer comes: otherwise it sees a reset instead.
const THROWN_AWAY: usize = 1024 * 1024;

/// What clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name that clients connect to, in ASCII.
    pub host: String,
    /// The domains of addresses that are answered, as [`domain`] makes them.
    pub domains: BTreeSet<String>,
    /// The port of TLS from the first octet, as it is reached from outside;
    /// never 0.
    pub pop3s_port: Option<u16>,
    /// The port of STLS, likewise.
    pub pop3_port: Option<u16>,
    /// What clients give as user name.
    pub user: User,
    /// What clients show as the name of the service.
    pub display_name: String,
    /// Somebody else's server, by which mail is sent.
    pub submission: Option<Submission>,
}

/// What of the address is the user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum User {
    /// All of it.
    #[default]
    Address,
    /// What stands before the `@`.
    LocalPart,
}

/// A server by which mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Its name, in ASCII.
    pub host: String,
    /// Its port. 465 is TLS from the first octet, any other STARTTLS
    /// (RFC 8314 §3.3).
    pub port: u16,
}

impl Submission {
    /// The port of submission over TLS.
    pub const IMPLICIT_TLS: u16 = 465;
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    ImplicitTls,
    StartTls,
}

/// A server as clients are told about it.
struct Server<'a> {
    host: &'a str,
    port: u16,
    security: Security,
}

impl Config {
    /// The ways to the maildrop, the best first.
    fn pop3(&self) -> impl Iterator<Item = Server<'_>> {
        let implicit = (self.pop3s_port, Security::ImplicitTls);
        let stls = (self.pop3_port, Security::StartTls);
        [implicit, stls].into_iter().filter_map(|(port, security)| {
            Some(Server {
                host: &self.host,
                port: port?,
                security,
            })
        })
    }

    /// Mozilla's format for `domain`, if there is anything to tell about it.
    pub(super) fn mozilla(&self, domain: &str) -> Option<String> {
        self.answers(domain)
            .then(|| mozilla::document(self, domain))
    }

    fn smtp(&self) -> Option<Server<'_>> {
        let Submission { host, port } = self.submission.as_ref()?;
        let security = match *port {
            Submission::IMPLICIT_TLS => Security::ImplicitTls,
            _ => Security::StartTls,
        };
        Some(Server {
            host,
            port: *port,
            security,
        })
    }

    /// Whether there is anything to tell about addresses in `domain`.
    fn answers(&self, domain: &str) -> bool {
        self.domains.contains(domain) && self.pop3().next().is_some()
    }

    /// The domain that an HTTP host stands for: itself, or its parent's where
    /// it is called `autoconfig`.
    fn domain_of(&self, host: &str) -> Option<String> {
        let host = domain(host)?;
        if self.domains.contains(&host) {
            return Some(host);
        }
        let parent = host.strip_prefix("autoconfig.")?;
        self.domains.contains(parent).then(|| parent.to_owned())
    }
}

/// The paths of both formats; everything else is not found.
pub(super) fn router(config: Config) -> Router {
    let config = Arc::new(config);
    MOZILLA
        .into_iter()
        .fold(Router::new(), |router, path| {
            router.route(path, get(mozilla))
        })
        .fallback(elsewhere)
        .with_state(config)
}

async fn mozilla(State(config): State<Arc<Config>>, uri: Uri, headers: HeaderMap) -> Response {
    let domain = match asked(&uri) {
        Ok(Some(address)) => Some(address.domain),
        Ok(None) => host(&uri, &headers).and_then(|host| config.domain_of(host)),
        Err(NoAddress) => {
            return (StatusCode::BAD_REQUEST, "emailaddress is not an address\n").into_response();
        }
    };
    match domain.and_then(|domain| config.mozilla(&domain)) {
        Some(xml) => document(xml),
        None => super::not_found().await.into_response(),
    }
}

/// What is no path of axum's: it knows no case-insensitive ones.
async fn elsewhere(State(config): State<Arc<Config>>, request: Request) -> Response {
    if !request.uri().path().eq_ignore_ascii_case(OUTLOOK) {
        return super::not_found().await.into_response();
    }
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")]).into_response();
    }
    match read(request).await {
        Ok(body) => document(outlook::answer(&config, &body)),
        Err(status) => status.into_response(),
    }
}

fn document(xml: String) -> Response {
    ([(CONTENT_TYPE, "text/xml; charset=utf-8")], xml).into_response()
}

/// What is asked for is no mail address.
struct NoAddress;

/// The address in the query, where there is one.
fn asked(uri: &Uri) -> Result<Option<Address>, NoAddress> {
    // In a form + is a space. Here it is that of user+folder@example.com,
    // which not every client escapes.
    let query = uri.query().unwrap_or_default().replace('+', "%2B");
    let mut asked = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, value)| key == "emailaddress" && !value.is_empty())
        .map(|(_, value)| value);
    let Some(address) = asked.next() else {
        return Ok(None);
    };
    match asked.next() {
        None => Address::parse(&address).map(Some).ok_or(NoAddress),
        Some(_) => Err(NoAddress),
    }
}

/// The host that a request was sent to, without its port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(host) = uri.host() {
        return Some(host);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    if hosts.next().is_some() {
        return None;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => Some(name),
        _ => Some(host),
    }
}

/// The body, or the status that says why it was not read.
async fn read(request: Request) -> Result<Vec<u8>, StatusCode> {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|octets| octets > THROWN_AWAY) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut stream = request.into_body().into_data_stream();
    let (mut body, mut octets) = (Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
        octets += chunk.len();
        if octets > THROWN_AWAY {
            break;
        }
        if octets <= LARGEST_BODY {
            body.extend_from_slice(&chunk);
        }
    }
    if octets > LARGEST_BODY {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
