//! What is believed of a request, and what is put on every answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use url::form_urlencoded;

use super::app::App;
use super::problem::Problem;
use super::session::Id;
use crate::secret::Secret;
use crate::web::bounded::Peer;

/// The largest form, in octets.
const LARGEST_FORM: usize = 16 * 1024;

/// How long a request may take that asks somebody else's server.
const LONGEST_ANSWER: Duration = Duration::from_secs(120);

/// How long a connection waits for the next request of a browser.
const KEPT: Duration = Duration::from_secs(5);

/// Nothing from elsewhere, nothing inline, in nobody's frame. Forms go nowhere
/// else: to a provider leads a page that leaves by itself, because browsers apply
/// `form-action` to each redirect that follows, wherever the provider leads.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const PERMISSIONS: &str =
    "camera=(), microphone=(), geolocation=(), payment=(), usb=(), clipboard-write=(self)";

/// Two sets of pages, each with sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    Enrolment,
    Operator,
}

impl Area {
    /// Which pages a path belongs to.
    fn of(path: &str) -> Self {
        match path.strip_prefix("/operator") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Operator,
            _ => Self::Enrolment,
        }
    }

    pub(super) fn home(self) -> &'static str {
        match self {
            Self::Enrolment => "/enrol",
            Self::Operator => "/operator",
        }
    }

    pub(super) fn sign_out(self) -> &'static str {
        match self {
            Self::Enrolment => "/enrol/sign-out",
            Self::Operator => "/operator/sign-out",
        }
    }

    /// The name of the cookie. Over https it is one that no other host can set.
    pub(super) fn cookie(self, https: bool) -> &'static str {
        match (self, https) {
            (Self::Enrolment, true) => "__Host-popgate",
            (Self::Enrolment, false) => "popgate",
            (Self::Operator, true) => "__Host-popgate-operator",
            (Self::Operator, false) => "popgate-operator",
        }
    }

    /// Gives the browser an id.
    pub(super) fn set_cookie(self, https: bool, id: &Id, headers: &mut HeaderMap) {
        let secure = if https { "; Secure" } else { "" };
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
            self.cookie(https),
            id.reveal()
        );
        if let Ok(mut value) = HeaderValue::try_from(cookie) {
            value.set_sensitive(true);
            headers.insert(SET_COOKIE, value);
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) area: Area,
    /// Of the browser; not yet given to it where `new`.
    pub(super) id: Id,
    new: bool,
    /// Nobody of ours has asked to see the answer: another site led here, or a program
    /// only looks whether there is one.
    pub(super) unasked: bool,
    /// Where from.
    pub(super) address: IpAddr,
    peer: Option<Peer>,
}

impl Visitor {
    /// The answer takes longer than others: somebody else's server is asked.
    pub(super) fn takes_long(&self) {
        if let Some(peer) = &self.peer {
            peer.extend(LONGEST_ANSWER);
        }
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        let visitor = parts.extensions.get::<Self>();
        visitor.cloned().ok_or(Problem::Broken)
    }
}

/// A form that a page of ours sent, from the browser that the page was given to.
pub(super) struct Form(BTreeMap<String, Secret>);

impl Form {
    /// What a field holds; nothing where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(Secret::reveal).unwrap_or_default()
    }
}

impl FromRequest<Arc<App>> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let visitor = request.extensions().get::<Visitor>().cloned();
        let visitor = visitor.ok_or(Problem::Broken)?;
        let headers = request.headers();
        let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next();
        if kind.map(str::trim) != Some("application/x-www-form-urlencoded") {
            return Err(Problem::Unreadable);
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
        let declared = declared.and_then(|it| it.parse::<usize>().ok());
        if declared.is_some_and(|octets| octets > LARGEST_FORM) {
            return Err(Problem::TooLarge);
        }
        let body = axum::body::to_bytes(request.into_body(), LARGEST_FORM)
            .await
            .map_err(|_| Problem::TooLarge)?;
        if let Some(peer) = &visitor.peer {
            peer.heard();
        }
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&body) {
            let value = Secret::new(value.into_owned());
            if fields.insert(name.into_owned(), value).is_some() {
                return Err(Problem::Unreadable);
            }
        }
        let form = Self(fields);
        if visitor.new || !app.is_csrf(visitor.area, &visitor.id, form.get("csrf")) {
            return Err(Problem::Forged);
        }
        Ok(form)
    }
}

/// Stands in front of every page.
pub(super) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if !is_our_host(&app, &request) {
        let text = "This is not the address under which these pages are published.\n";
        return with_headers(
            &app,
            (StatusCode::MISDIRECTED_REQUEST, text).into_response(),
        );
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.map(|ConnectInfo(peer)| peer.clone());
    if let Some(peer) = &peer {
        peer.asked();
        if *request.method() != Method::POST {
            peer.heard();
        }
    }
    let area = Area::of(request.uri().path());
    let known = cookie(headers, area.cookie(app.is_https()));
    let new = known.is_none();
    let Some(id) = known.or_else(|| Id::new().ok()) else {
        return with_headers(&app, StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let visitor = Visitor {
        area,
        id,
        new,
        unasked: site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
            || is_only_looking(&request),
        address: address(headers, peer.as_ref()),
        peer: peer.clone(),
    };
    let answer = if is_from_elsewhere(&app, &request) {
        Problem::Forged.into_response()
    } else {
        request.extensions_mut().insert(visitor.clone());
        // What breaks here breaks one answer.
        AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Problem::Broken.into_response())
    };
    let mut answer = match answer.extensions().get::<Arc<Problem>>() {
        Some(problem) => {
            let mut page = problem.page(&app, &visitor);
            if let Some(allow) = answer.headers().get("allow") {
                page.headers_mut().insert("allow", allow.clone());
            }
            page
        }
        None => answer,
    };
    let is_page = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"text/html"));
    if new && is_page && !answer.headers().contains_key(SET_COOKIE) {
        area.set_cookie(app.is_https(), &visitor.id, answer.headers_mut());
    }
    if let Some(peer) = peer {
        peer.answered(KEPT);
    }
    with_headers(&app, answer)
}

/// The pages are at one place, whatever a browser was made to believe.
fn is_our_host(app: &App, request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return false;
    }
    let authority = request.uri().authority().map(|it| it.as_str());
    let ours = |host: &str| {
        let scheme = app.config.public_url.scheme();
        // Written as an origin is: without the port where it is the scheme's own.
        url::Url::parse(&format!("{scheme}://{host}/")).is_ok_and(|url| {
            url.username().is_empty()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.origin().ascii_serialization() == app.origin
        })
    };
    let clean = |host: &str| !host.contains(['/', '\\', '?', '#', '@']);
    host.is_some_and(|host| clean(host) && ours(host)) && authority.is_none_or(ours)
}

/// A request that changes something, and that another site made.
fn is_from_elsewhere(app: &App, request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    let headers = request.headers();
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    origin.is_some_and(|origin| origin != app.origin.as_bytes())
        || site.is_some_and(|site| site != b"same-origin")
}

/// Nobody sees the answer, or nobody yet.
fn is_only_looking(request: &Request) -> bool {
    let purpose = request.headers().get("sec-purpose");
    *request.method() == Method::HEAD
        || purpose.is_some_and(|it| it.as_bytes().starts_with(b"prefetch"))
}

/// The id in the cookie of this name, if there is one and only one.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Id> {
    let mut values = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|it| it.as_bytes().split(|octet| *octet == b';'))
        // What others keep beside it may be anything (RFC 6265 §4.2.2).
        .filter_map(|it| std::str::from_utf8(it).ok()?.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values.next()?;
    match values.next() {
        None => Id::parse(value),
        Some(_) => None,
    }
}

/// Where a request comes from. A reverse proxy on this host says whom it speaks
/// for, in the last place; nobody else is asked.
fn address(headers: &HeaderMap, peer: Option<&Peer>) -> IpAddr {
    let nobody = IpAddr::from([0, 0, 0, 0]);
    let peer = peer.map_or(nobody, |peer| peer.address.ip().to_canonical());
    if !peer.is_loopback() {
        return peer;
    }
    headers
        .get_all("x-forwarded-for")
        .iter()
        .next_back()
        .and_then(|it| it.to_str().ok()?.rsplit(',').next()?.trim().parse().ok())
        .unwrap_or(peer)
}

/// What every answer says to the browser.
fn with_headers(app: &App, mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    let mut put = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(CONTENT_SECURITY_POLICY, POLICY);
    put(X_FRAME_OPTIONS, "DENY");
    put(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // With no-referrer, browsers would not say where a form comes from.
    put(REFERRER_POLICY, "same-origin");
    put(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    put(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    put(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    put(HeaderName::from_static("x-robots-tag"), "noindex, nofollow");
    if app.is_https() {
        put(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("Cookie"));
    }
    answer
}
