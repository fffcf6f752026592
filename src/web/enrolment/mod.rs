//! Pages where people enrol, and where the operator sees how accounts are.
//!
//! All of them are made here, of templates that escape whatever they show; a script
//! copies text, and nothing needs it. Somebody signs in with his provider, and is
//! believed to be who the provider says once the mailbox has opened. Each set of
//! pages (`/enrol`, `/operator`) has sessions of its own, in memory.
//!
//! A reverse proxy publishes these two paths and what is below them, and no others:
//! `/metrics`, `/live` and `/ready` are the operator's alone. It keeps the `Host`
//! that the browser sent, and puts the browser's address last in
//! `X-Forwarded-For`, which is believed of loopback only.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use url::Url;

use super::autoconfig::Submission;
use crate::accounts::{Accounts, Probe};
use crate::metrics::Metrics;
use crate::secret::Secret;

mod app;
mod assets;
mod attempts;
mod devices;
mod flow;
mod operator;
mod problem;
mod profile;
mod request;
mod session;
mod sign_in;
mod words;

use app::App;
use problem::Problem;

/// What the pages are told by the configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where browsers reach the pages: https, or http on loopback; without a path.
    /// Nothing that a browser sends decides it.
    pub public_url: Url,
    /// Whose addresses may enrol by themselves, in lower case; others need an
    /// account that the operator has made.
    pub domains: BTreeSet<String>,
    /// Providers to choose from, by name, in this order.
    pub providers: Vec<String>,
    /// What the operator's page asks for; `None`: there is no such page.
    pub operator_password: Option<Secret>,
    /// What clients are told: host name and ports, as they are reached from outside.
    pub pop3: Reached,
    /// What the service is called.
    pub title: String,
}

/// Where mail clients find POP3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// A name, in ASCII.
    pub host: String,
    /// TLS from the first octet.
    pub pop3s_port: Option<u16>,
    /// STLS.
    pub pop3_port: Option<u16>,
}

/// The pages, with all that they need.
#[derive(Clone)]
pub struct Enrolment {
    /// As configured.
    pub config: Arc<Config>,
    /// Who enrols where.
    pub accounts: Arc<Accounts>,
    /// Looks whether a mailbox opens.
    pub probe: Arc<dyn Probe>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}

/// The pages. `submission`: somebody else's server, by which mail is sent, for the
/// profiles. `None`: the system gives no random numbers.
pub(super) fn router(
    enrolment: Enrolment,
    metrics: Arc<Metrics>,
    submission: Option<Submission>,
) -> Option<Router> {
    let app = Arc::new(App::new(enrolment, metrics, submission)?);
    let people = Router::new()
        .route("/enrol", get(sign_in::choose))
        .route("/enrol/start", post(sign_in::start))
        .route("/enrol/callback/{provider}", get(sign_in::callback))
        .route(
            "/enrol/provider/{provider}",
            get(sign_in::mailbox).post(sign_in::open),
        )
        .route("/enrol/devices", get(devices::list))
        .route("/enrol/devices/add", post(devices::add))
        .route("/enrol/devices/remove", post(devices::remove))
        .route("/enrol/password", get(devices::password))
        .route("/enrol/profile/apple", get(devices::apple))
        .route("/enrol/profile/thunderbird", get(devices::thunderbird))
        .route("/enrol/sign-out", post(sign_in::sign_out))
        .route("/enrol/assets/{name}", get(asset))
        .route("/enrol/", get(nothing))
        .route("/enrol/{*rest}", get(nothing));
    let operator = Router::new()
        .route("/operator", get(operator::overview))
        .route("/operator/sign-in", post(operator::sign_in))
        .route("/operator/sign-out", post(operator::sign_out))
        .route("/operator/account", get(operator::details))
        .route("/operator/account/disable", post(operator::disable))
        .route("/operator/account/enable", post(operator::enable))
        .route("/operator/account/revoke", post(operator::revoke_device))
        .route("/operator/", get(nothing))
        .route("/operator/{*rest}", get(nothing));
    let all = match app.has_operator() {
        true => people.merge(operator),
        false => people,
    };
    Some(
        all.method_not_allowed_fallback(async || Problem::Method)
            .layer(from_fn_with_state(Arc::clone(&app), request::guard))
            .with_state(app),
    )
}

async fn asset(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    app.assets.get(uri.path())
}

async fn nothing() -> Problem {
    Problem::NotFound
}
