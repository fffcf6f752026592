//! The driver of a POP3 session: reads lines, takes the steps that the session
//! asks for, and is the only code that does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::client::{Client, Gone};
use super::config::Config;
use super::delivery::{self, Failure};
use super::guard::Guard;
use super::lock::{Lock, Locks};
use super::refusal;
use super::tls::Certificates;
use crate::maildrop::{Maildrop, MessageIndex, Outcome, Portion, Update};
use crate::metrics::{LoginResult, Metrics, SessionEnd};
use crate::pop3::{Framed, Front, Input, Refusal, Response, Session, Step};
use crate::sasl::{Credentials, Mechanism};
use crate::upstream::{Upstream, UpstreamError, UpstreamSession};

/// What all connections share.
pub(super) struct Context {
    pub config: Config,
    pub upstream: Arc<dyn Upstream>,
    pub metrics: Arc<Metrics>,
    pub locks: Arc<Locks>,
    pub guard: Guard,
    /// KiB of messages that may be held in memory.
    pub budget: Arc<Semaphore>,
    /// Cancelled when popgate is to stop.
    pub shutdown: CancellationToken,
}

/// Serves one client until its session ends.
pub(super) async fn serve(
    context: Arc<Context>,
    client: Client,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    tls_active: bool,
) {
    let front = Front {
        tls_active,
        stls_available: certificates.is_some(),
        cleartext_login: context.config.allow_cleartext,
        mechanisms: Mechanism::ALL
            .into_iter()
            .filter(|mechanism| context.upstream.accepts(*mechanism))
            .collect(),
        deletion_refused: context.config.refuse_deletion,
        bad_command_limit: context.config.limits.bad_commands,
    };
    let driver = Driver {
        login_deadline: Instant::now() + context.config.timeouts.login,
        context,
        client,
        peer,
        certificates,
        upstream: None,
        lock: None,
        account: Account {
            started: Instant::now(),
            user: None,
            retrieved: 0,
            octets: 0,
            deleted: 0,
        },
    };
    driver.run(Session::new(front)).await;
}

struct Driver {
    context: Arc<Context>,
    client: Client,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    upstream: Option<Box<dyn UpstreamSession>>,
    lock: Option<Lock>,
    login_deadline: Instant,
    account: Account,
}

/// What the line at the end of a session tells.
struct Account {
    started: Instant,
    user: Option<String>,
    retrieved: u64,
    octets: u64,
    deleted: u64,
}

/// The input that a step led to, or the end of the session.
enum Next {
    Wait,
    Input(Input<'static>),
    End(SessionEnd),
}

impl From<Gone> for SessionEnd {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Disconnected => Self::Disconnected,
            Gone::SlowReader => Self::SlowReader,
        }
    }
}

impl Driver {
    async fn run(mut self, session: Session) {
        session.greeting().write_to(self.client.out());
        let end = self.converse(session).await;
        // The next session of this client finds the maildrop free.
        self.lock = None;
        self.report(end);
        if let Some(mut upstream) = self.upstream.take() {
            upstream.close().await;
        }
    }

    async fn converse(&mut self, mut session: Session) -> SessionEnd {
        let mut last_command = Instant::now();
        loop {
            let (mut now, mut step) = match self.client.lines.next(session.expects()) {
                Some(Framed::Line(line)) => session.handle(Input::Line(line)),
                Some(Framed::TooLong) => session.handle(Input::LineTooLong),
                None => match self.listen(&session, last_command).await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
            };
            loop {
                match self.take(&mut now, step).await {
                    Next::Wait => break,
                    Next::End(end) => return end,
                    Next::Input(input) => (now, step) = now.handle(input),
                }
            }
            session = now;
            last_command = Instant::now();
        }
    }

    /// Sends what is due and waits for the client to send more.
    async fn listen(&mut self, session: &Session, last_command: Instant) -> Result<(), SessionEnd> {
        self.client.flush().await?;
        let (deadline, late) = if session.is_authorization() {
            (self.login_deadline, SessionEnd::LoginTimeout)
        } else {
            (
                last_command + self.context.config.timeouts.idle,
                SessionEnd::Idle,
            )
        };
        let evicted = self.lock.as_ref().map(|lock| lock.evicted().clone());
        let evicted = async {
            match evicted {
                Some(evicted) => evicted.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.context.shutdown.cancelled() => Err(SessionEnd::Shutdown),
            () = evicted => Err(SessionEnd::Takeover),
            read = self.client.read(deadline) => match read {
                Ok(true) => Ok(()),
                Ok(false) => Err(late),
                Err(gone) => Err(gone.into()),
            }
        }
    }

    async fn take(&mut self, session: &mut Session, step: Step) -> Next {
        match self.try_step(session, step).await {
            Ok(next) => next,
            Err(gone) => Next::End(gone.into()),
        }
    }

    async fn try_step(&mut self, session: &mut Session, step: Step) -> Result<Next, Gone> {
        match step {
            Step::Nothing => {}
            Step::Reply(response) => response.write_to(self.client.out()),
            Step::Lines(response, mut lines) => {
                response.write_to(self.client.out());
                while !session.write_lines(&mut lines, self.client.out(), 8 * 1024) {
                    self.client.flush_if_large().await?;
                }
            }
            Step::Continue(challenge) => {
                let out = self.client.out();
                out.extend_from_slice(b"+ ");
                out.extend_from_slice(&challenge);
                out.extend_from_slice(b"\r\n");
            }
            Step::StartTls(response) => {
                response.write_to(self.client.out());
                self.client.flush().await?;
                return Ok(self.start_tls().await);
            }
            Step::Open(credentials) => {
                self.client.flush().await?;
                return Ok(self.open(credentials).await);
            }
            Step::Deliver {
                index,
                octets,
                portion,
            } => {
                return Ok(self.deliver(session, index, octets, portion).await);
            }
            Step::Update(update) => {
                self.client.flush().await?;
                return Ok(Next::Input(self.update(session, &update).await));
            }
            Step::Close(response) => return Ok(Next::End(self.close(session, &response).await)),
        }
        self.client.flush_if_large().await?;
        Ok(Next::Wait)
    }

    async fn start_tls(&mut self) -> Next {
        let Some(certificates) = &self.certificates else {
            return Next::End(SessionEnd::Internal);
        };
        let patience = self.context.config.timeouts.handshake;
        match self
            .client
            .start_tls(certificates.server_config(), patience)
            .await
        {
            Ok(()) => Next::Input(Input::TlsStarted),
            Err(_) => {
                self.context.metrics.tls_handshake_failures.inc();
                Next::End(SessionEnd::Tls)
            }
        }
    }

    /// Logs in upstream, locks the maildrop and lists it. What the upstream
    /// takes for this is not the client's time.
    async fn open(&mut self, credentials: Credentials) -> Next {
        let began = Instant::now();
        self.account.user = Some(credentials.user().to_owned());
        let opening = Opening {
            context: Arc::clone(&self.context),
            client: self.peer.ip(),
        };
        let opened = tokio::select! {
            opened = self.client.stays_while(opening.open(credentials)) => opened,
            () = self.context.shutdown.cancelled() => {
                return Next::Input(Input::Refused(refusal::stopping()));
            }
        };
        self.login_deadline += began.elapsed();
        match opened {
            None => Next::End(SessionEnd::Disconnected),
            Some(Ok((upstream, lock, maildrop))) => {
                self.upstream = Some(upstream);
                self.lock = Some(lock);
                Next::Input(Input::Opened(maildrop))
            }
            Some(Err(refused)) => {
                if refused.delay > Duration::ZERO {
                    let delay = tokio::time::sleep(refused.delay);
                    tokio::select! {
                        stayed = self.client.stays_while(delay) => {
                            if stayed.is_none() {
                                return Next::End(SessionEnd::Disconnected);
                            }
                        }
                        () = self.context.shutdown.cancelled() => {}
                    }
                }
                Next::Input(Input::Refused(refused.refusal))
            }
        }
    }

    async fn deliver(
        &mut self,
        session: &Session,
        index: MessageIndex,
        octets: u64,
        portion: Portion,
    ) -> Next {
        let Some(upstream) = self.upstream.as_deref_mut() else {
            return Next::End(SessionEnd::Internal);
        };
        let context = &self.context;
        let delivered =
            delivery::deliver(context, upstream, &mut self.client, index, octets, portion).await;
        match delivered {
            Ok(delivered) => {
                self.account.octets += delivered.octets;
                context.metrics.octets_retrieved.inc_by(delivered.octets);
                if portion != Portion::Whole {
                    return Next::Input(Input::Delivered { octets: None });
                }
                self.account.retrieved += 1;
                context.metrics.messages_retrieved.inc();
                upstream.learn_octets(index, delivered.octets);
                Next::Input(Input::Delivered {
                    octets: Some(delivered.octets),
                })
            }
            Err(Failure::BeforeReply(error)) => {
                note(context, session.user(), self.peer.ip(), "retrieve", &error);
                Next::Input(Input::NotDelivered(refusal_in_session(&error)))
            }
            Err(Failure::Midway(error)) => {
                note(context, session.user(), self.peer.ip(), "retrieve", &error);
                self.client.abort();
                Next::End(SessionEnd::Upstream)
            }
            Err(Failure::Client(gone)) => {
                self.client.abort();
                Next::End(gone.into())
            }
        }
    }

    /// The UPDATE state (RFC 1939 §6). Once it has begun it runs to its end,
    /// whether or not the client still waits.
    async fn update(&mut self, session: &Session, update: &Update) -> Input<'static> {
        let user = self.account.user.clone().unwrap_or_default();
        let outcome = match self.upstream.as_deref_mut() {
            Some(upstream) => upstream.update(update).await,
            None => Err(UpstreamError::temporary("no upstream session")),
        };
        match outcome {
            Ok(outcome) => {
                self.account.deleted += outcome.removed.len() as u64;
                self.context
                    .metrics
                    .messages_deleted
                    .inc_by(outcome.removed.len() as u64);
                self.audit(session, &user, &outcome);
                Input::Updated(outcome)
            }
            Err(error) => {
                note(&self.context, Some(&user), self.peer.ip(), "update", &error);
                let outcome = Outcome {
                    removed: Vec::new(),
                    remaining: update.delete().to_vec(),
                };
                Input::Updated(outcome)
            }
        }
    }

    /// One line for each message that left the upstream mailbox.
    fn audit(&self, session: &Session, user: &str, outcome: &Outcome) {
        let Some(maildrop) = session.maildrop() else {
            return;
        };
        for message in outcome
            .removed
            .iter()
            .filter_map(|index| maildrop.get(*index))
        {
            info!(
                target: "popgate::audit",
                user,
                client = %self.peer.ip(),
                upstream = self.context.upstream.name(),
                unique_id = message.unique_id,
                octets = message.octets,
                "message removed"
            );
        }
    }

    async fn close(&mut self, session: &Session, response: &Response) -> SessionEnd {
        // A client that logs in again at once must not find its own lock.
        self.lock = None;
        response.write_to(self.client.out());
        self.client.close().await;
        match session {
            Session::Update(_) => SessionEnd::Quit,
            Session::Authorization(_) if response.is_ok() => SessionEnd::Quit,
            Session::Authorization(_) | Session::Transaction(_) => SessionEnd::BadCommands,
        }
    }

    /// The one line about a session.
    fn report(&self, end: SessionEnd) {
        let account = &self.account;
        self.context.metrics.sessions.get_or_create(&end).inc();
        info!(
            user = account.user.as_deref().unwrap_or_default(),
            client = %self.peer,
            upstream = self.context.upstream.name(),
            retrieved = account.retrieved,
            octets = account.octets,
            deleted = account.deleted,
            duration_ms = u64::try_from(account.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            end = end.as_str(),
            "session ended"
        );
    }
}

/// A login under way. It owns all it needs, so that it can be given up.
struct Opening {
    context: Arc<Context>,
    client: IpAddr,
}

struct Refused {
    refusal: Refusal,
    delay: Duration,
}

type Opened = (Box<dyn UpstreamSession>, Lock, Maildrop);

impl Opening {
    async fn open(self, credentials: Credentials) -> Result<Opened, Refused> {
        let user = credentials.user().to_owned();
        let guard = &self.context.guard;
        let digest = guard.digest(&credentials);
        if guard.is_refused(&digest) {
            let refusal = refusal::refusal(&UpstreamError::Authentication);
            info!(user, client = %self.client, "login refused as by the upstream before");
            self.count(LoginResult::Suppressed);
            return Err(Refused {
                refusal,
                delay: guard.delay(self.client, digest),
            });
        }
        match self.try_open(credentials).await {
            Ok(opened) => {
                guard.forget_refusal(&digest);
                self.count(LoginResult::Success);
                Ok(opened)
            }
            Err(Denied::Locked) => {
                guard.forget_refusal(&digest);
                self.count(LoginResult::InUse);
                Err(Refused {
                    refusal: refusal::locked(),
                    delay: Duration::ZERO,
                })
            }
            Err(Denied::Upstream(error)) => {
                note(&self.context, Some(&user), self.client, "login", &error);
                let delay = match error {
                    UpstreamError::Authentication => {
                        guard.remember_refusal(digest);
                        self.count(LoginResult::Refused);
                        guard.delay(self.client, digest)
                    }
                    _ => {
                        self.count(LoginResult::Failed);
                        Duration::ZERO
                    }
                };
                Err(Refused {
                    refusal: refusal::refusal(&error),
                    delay,
                })
            }
        }
    }

    /// The upstream judges the credentials first: only who knows the password
    /// learns that the maildrop is locked.
    async fn try_open(&self, credentials: Credentials) -> Result<Opened, Denied> {
        let mailbox = credentials.mailbox().to_owned();
        let mut session = self
            .context
            .upstream
            .login(credentials, self.client)
            .await?;
        let locks = &self.context.locks;
        let lock = if self.context.config.session_takeover {
            locks.take_over(&mailbox).await
        } else {
            locks.acquire(&mailbox)
        };
        let Some(lock) = lock else {
            session.close().await;
            return Err(Denied::Locked);
        };
        match session.snapshot().await {
            Ok(maildrop) => Ok((session, lock, maildrop)),
            // The credentials were good a moment ago.
            Err(UpstreamError::Authentication) => {
                Err(UpstreamError::temporary("refused behind the login").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn count(&self, result: LoginResult) {
        self.context.metrics.logins.get_or_create(&result).inc();
    }
}

enum Denied {
    Upstream(UpstreamError),
    Locked,
}

impl From<UpstreamError> for Denied {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

/// The answer to a failure in TRANSACTION state, where nothing is the fault of
/// the credentials that opened it.
fn refusal_in_session(error: &UpstreamError) -> Refusal {
    match error {
        UpstreamError::Authentication => refusal::refusal(&UpstreamError::temporary("")),
        other => refusal::refusal(other),
    }
}

/// Logs and counts what went wrong upstream.
fn note(context: &Context, user: Option<&str>, client: IpAddr, what: &str, error: &UpstreamError) {
    let kind = refusal::kind(error);
    context.metrics.upstream_errors.get_or_create(&kind).inc();
    let user = user.unwrap_or_default();
    let upstream = context.upstream.name();
    let kind = kind.as_str();
    match error {
        UpstreamError::Misconfigured(_) => {
            error!(user, client = %client, upstream, kind, reason = %error, "{what} failed: a setting must be changed");
        }
        UpstreamError::Authentication | UpstreamError::Gone => {
            info!(user, client = %client, upstream, kind, "{what} failed");
        }
        _ => {
            warn!(user, client = %client, upstream, kind, reason = %error, "{what} failed");
        }
    }
}
