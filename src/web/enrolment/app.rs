//! What the pages share.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::SystemRandom;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::assets::Assets;
use super::attempts::Attempts;
use super::flow::Flows;
use super::problem::Problem;
use super::request::{Area, Visitor};
use super::session::{Id, Notice, Session, Sessions};
use super::{Config, Enrolment};
use crate::accounts::{Accounts, Entry, Probe, Provider};
use crate::metrics::Metrics;
use crate::web::autoconfig::Submission;

/// People who are signed in at once.
const MOST_PEOPLE: usize = 10_000;

/// Browsers in which the operator is signed in at once.
const MOST_OPERATORS: usize = 100;

/// Questions to providers and mail servers at once.
const QUESTIONS: usize = 24;

/// What the pages share.
pub(super) struct App {
    pub(super) config: Arc<Config>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) submission: Option<Submission>,
    pub(super) flows: Flows,
    pub(super) attempts: Attempts,
    pub(super) assets: Assets,
    /// How the pages are reached, as browsers write it in `Origin`.
    pub(super) origin: String,
    people: Sessions,
    operators: Sessions,
    /// Of this process: what it signs is worthless after a restart.
    key: Key,
    operator: Option<hmac::Tag>,
    questions: Semaphore,
}

impl App {
    /// `None`: the system gives no random numbers.
    pub(super) fn new(
        enrolment: Enrolment,
        metrics: Arc<Metrics>,
        submission: Option<Submission>,
    ) -> Option<Self> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new()).ok()?;
        let Enrolment {
            config,
            accounts,
            probe,
        } = enrolment;
        let operator = config
            .operator_password
            .as_ref()
            .map(|password| hmac::sign(&key, password.reveal().as_bytes()));
        Some(Self {
            origin: config.public_url.origin().ascii_serialization(),
            config,
            accounts,
            probe,
            metrics,
            submission,
            flows: Flows::default(),
            attempts: Attempts::default(),
            assets: Assets::new(),
            people: Sessions::new(MOST_PEOPLE),
            operators: Sessions::new(MOST_OPERATORS),
            key,
            operator,
            questions: Semaphore::new(QUESTIONS),
        })
    }

    /// Browsers are told that there is nothing but https.
    pub(super) fn is_https(&self) -> bool {
        self.config.public_url.scheme() == "https"
    }

    pub(super) fn sessions(&self, area: Area) -> &Sessions {
        match area {
            Area::Enrolment => &self.people,
            Area::Operator => &self.operators,
        }
    }

    /// Proves that a form came from a page that this browser was given.
    pub(super) fn csrf(&self, area: Area, id: &Id) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &csrf_message(area, id)))
    }

    pub(super) fn is_csrf(&self, area: Area, id: &Id, token: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(token)
            .is_ok_and(|tag| hmac::verify(&self.key, &csrf_message(area, id), &tag).is_ok())
    }

    /// Compares in a time that tells nothing. `None`: there is no operator's page.
    pub(super) fn is_operator(&self, password: &str) -> Option<bool> {
        let expected = self.operator.as_ref()?;
        Some(hmac::verify(&self.key, password.as_bytes(), expected.as_ref()).is_ok())
    }

    pub(super) fn has_operator(&self) -> bool {
        self.operator.is_some()
    }

    /// One more question to somebody else's server.
    pub(super) fn question(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.questions.try_acquire().map_err(|_| Problem::Busy)
    }

    /// The providers to choose from.
    pub(super) fn offered(&self) -> impl Iterator<Item = &Arc<Provider>> {
        let names = self.config.providers.iter();
        names
            .filter_map(|name| self.accounts.provider(name))
            // Where the provider asks nobody, nobody proves who he is.
            .filter(|provider| !provider.entry.needs_nobody())
    }

    /// The provider of this name, if it is one to choose from.
    pub(super) fn offer(&self, name: &str) -> Result<&Arc<Provider>, Problem> {
        self.offered()
            .find(|provider| provider.name == name)
            .ok_or(Problem::NotFound)
    }

    /// What all pages show.
    pub(super) fn frame(&self, visitor: &Visitor) -> Frame<'_> {
        let area = visitor.area;
        let sessions = self.sessions(area);
        let look = |session: &mut Session| (session.account.clone(), session.notice.take());
        let (who, notice) = match sessions.with(&visitor.id, look) {
            Some((account, notice)) => {
                let who = match area {
                    Area::Enrolment => account,
                    Area::Operator => "Operator".to_owned(),
                };
                (Some(who), notice)
            }
            None => (None, None),
        };
        Frame {
            service: &self.config.title,
            assets: &self.assets,
            csrf: self.csrf(area, &visitor.id),
            // A table needs the room; a form does not.
            wide: area == Area::Operator && who.is_some(),
            who,
            notice,
            home: area.home(),
            sign_out: area.sign_out(),
        }
    }

    /// Signs somebody in; the answer gets the cookie with the new id.
    pub(super) fn sign_in(
        &self,
        visitor: &Visitor,
        account: &str,
        notice: Option<Notice>,
        mut response: Response,
    ) -> Result<Response, Problem> {
        let sessions = self.sessions(visitor.area);
        let id = sessions
            .open(account.to_owned(), Some(&visitor.id))
            .map_err(|_| Problem::Broken)?;
        sessions.with(&id, |session| session.notice = notice);
        visitor
            .area
            .set_cookie(self.is_https(), &id, response.headers_mut());
        Ok(response)
    }
}

fn csrf_message(area: Area, id: &Id) -> Vec<u8> {
    [area.cookie(true).as_bytes(), b"\0", id.reveal().as_bytes()].concat()
}

/// What all pages show.
pub(super) struct Frame<'a> {
    pub(super) service: &'a str,
    pub(super) assets: &'a Assets,
    pub(super) csrf: String,
    /// Who is signed in.
    pub(super) who: Option<String>,
    pub(super) notice: Option<Notice>,
    pub(super) home: &'static str,
    pub(super) sign_out: &'static str,
    pub(super) wide: bool,
}

/// What somebody is asked for before he can go on with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// His address: he signs in at the provider, which may not say who did.
    Address,
    /// And an app password.
    Password,
    /// And an API token.
    ApiToken,
}

impl Asked {
    pub(super) fn by(provider: &Provider) -> Self {
        match provider.entry {
            Entry::ApiToken => Self::ApiToken,
            Entry::Password => Self::Password,
            Entry::OAuth(_) | Entry::Master { .. } => Self::Address,
        }
    }
}
