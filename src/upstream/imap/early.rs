//! The opening of INBOX, sent behind the login before that is answered: it costs
//! no round trip of its own. What the server can do is presumed to be what it
//! could do at the login before; where anything is otherwise than was presumed,
//! the plain way is gone.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Config;
use super::connection::{Connection, Event, Tag};
use super::folders::Finder;
use super::known::Known;
use super::login::{self, Capabilities, Greeted, LoggedIn, capability_code, hear_capabilities};
use super::opening::{Flight, Question};
use super::session::{Place, folder_key};
use super::shared::Presumed;
use super::snapshot::{finder, known, needs, needs_layout};
use super::status::Kind;
use crate::maildrop::{DeletePolicy, FolderName};
use crate::sasl::Credentials;
use crate::upstream::UpstreamError;

/// How long the first answer to what was sent early may take behind the login's
/// own. A server that is silent for longer has lost it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be sent early.
pub(super) struct Early {
    presumed: Presumed,
    question: Question,
    known: Option<Known>,
    finder: Finder,
}

/// What became of a login with something sent behind it.
pub(super) enum Tried {
    Done(Box<LoggedIn>, Option<Box<Flight>>),
    /// Logged in, but what was presumed is not so: what was sent is forgotten.
    Otherwise(Box<LoggedIn>),
    /// Not what a server does that hears what is sent early. Whether the
    /// credentials are good is not known.
    Unclear,
    /// It has gone, or is silent, for that reason or another.
    Lost(UpstreamError),
}

impl Early {
    /// What opens the INBOX of a policy that is about no other folder; `None`
    /// where that depends on what is not known before the login.
    pub async fn plan(place: &Place, credentials: &Credentials) -> Option<Self> {
        let policy = &place.policy;
        let is_inbox = policy.shared.is_none() && policy.folders.iter().all(FolderName::is_inbox);
        // The refusal of a token is a challenge: the next line would be its answer.
        if !is_inbox || needs_layout(policy) || !matches!(credentials, Credentials::Password { .. })
        {
            return None;
        }
        let presumed = place.shared.presumed()?;
        let needs = needs(policy, &presumed.capabilities).ok()?;
        let (finder, _) = finder(policy, &presumed.capabilities, None);
        let key = folder_key(
            place.config.realm.as_deref(),
            credentials.mailbox(),
            "INBOX",
        );
        let hides_by_store = match &place.store {
            Some(store) if policy.delete == DeletePolicy::Hide => {
                !store.folder(&key).await.ok()?.hidden.is_empty()
            }
            _ => false,
        };
        let most = place.config.limits.messages;
        Some(Self {
            question: Question::new(policy, "INBOX", false, hides_by_store, needs, most),
            known: known(&place.snapshots, &key).await,
            presumed,
            finder,
        })
    }

    /// Logs in, and sends the opening behind the login.
    pub async fn login(
        self,
        mut greeted: Greeted,
        credentials: &Credentials,
        client: IpAddr,
        config: &Config,
    ) -> Result<Tried, UpstreamError> {
        let Some(prepared) = greeted.prepare_for_more(credentials, config)? else {
            greeted.identify(config, client).await?;
            let logged_in = greeted.login(credentials, config).await?;
            return Ok(Tried::Done(Box::new(logged_in), None));
        };
        let identity = greeted.send_identity(config, client).await?;
        let mut connection = greeted.connection;
        let login = connection.send(prepared.command).await?;
        let asked = match self.presumed.are_told {
            true => None,
            false => Some(connection.send(login::ask()).await?),
        };
        let capabilities = &self.presumed.capabilities;
        let flight = Flight::send(
            &mut connection,
            capabilities,
            self.question,
            self.known,
            &self.finder,
        )
        .await?;
        let sent = LoginSent {
            identity,
            login,
            asked,
        };
        match sent.hear(&mut connection, flight, &self.presumed).await {
            Ok(Some((capabilities, are_told, flight))) => {
                let logged_in = Box::new(LoggedIn {
                    connection,
                    capabilities,
                    are_told,
                });
                Ok(match flight {
                    Some(flight) => Tried::Done(logged_in, Some(Box::new(flight))),
                    None => Tried::Otherwise(logged_in),
                })
            }
            Ok(None) | Err(UpstreamError::Protocol(_)) => Ok(Tried::Unclear),
            Err(error) if connection.has_failed() => Ok(Tried::Lost(error)),
            Err(error) => Err(error),
        }
    }
}

/// A login on its way.
struct LoginSent {
    identity: Option<Tag>,
    login: Tag,
    /// CAPABILITY, behind a login whose answer is not presumed to tell.
    asked: Option<Tag>,
}

impl LoginSent {
    /// The capabilities, whether the login's own answer told them, and what is on
    /// its way still; `None`: what was sent behind the login is lost.
    async fn hear(
        self,
        connection: &mut Connection,
        flight: Flight,
        presumed: &Presumed,
    ) -> Result<Option<(Capabilities, bool, Option<Flight>)>, UpstreamError> {
        let deadline = connection.deadline();
        let mut told = None;
        // What belongs to the opening is not to come before its time: nobody
        // listens to it yet.
        let mut is_in_order = true;
        let mut hear = |event: Event, told: &mut Option<Capabilities>| {
            is_in_order &= matches!(event, Event::Capability(_) | Event::Untagged(_));
            hear_capabilities(event, told)
        };
        if let Some(identity) = self.identity {
            // Whatever the server makes of it.
            let hear = |event| hear(event, &mut told);
            connection.wait(identity, deadline, hear).await?;
        }
        let answer = {
            let hear = |event| hear(event, &mut told);
            connection.wait(self.login, deadline, hear).await?
        };
        if answer.kind != Kind::Ok {
            return Err(answer.login_refusal());
        }
        let due = Instant::now() + PATIENCE;
        let mut told = capability_code(&answer).or(told);
        let are_told = told.is_some();
        if let Some(asked) = self.asked {
            if !connection.is_answered_by(due).await? {
                return Ok(None);
            }
            let mut heard = None;
            let hear = |event| hear(event, &mut heard);
            let answer = connection.wait(asked, deadline, hear).await?;
            answer.ok_or_error("CAPABILITY")?;
            told = told.or(heard);
        }
        if is_in_order && let Some(capabilities) = told.take_if(|it| *it == *presumed.capabilities)
        {
            return Ok(Some((capabilities, are_told, Some(flight))));
        }
        if !connection.is_answered_by(due).await? {
            return Ok(None);
        }
        flight.forget(connection).await?;
        let capabilities = match told {
            Some(told) => told,
            None => login::capabilities(connection).await?,
        };
        Ok(Some((capabilities, are_told, None)))
    }
}
