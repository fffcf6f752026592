//! The driver of a POP3 session: reads lines, takes the steps that the session
//! asks for, and is the only code that does.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::claim::{self, Claim};
use super::client::{Client, Gone};
use super::config::Config;
use super::delivery::{self, Failure};
use super::guard::{Guard, HeldUp};
use super::lock::{Lock, Locks};
use super::login_delay::LoginDelays;
use super::opening::{Opened, Opening, UpstreamConnection, note};
use super::policies::{Judge, Login};
use super::record::{Record, shown};
use super::refusal;
use super::tls::Certificates;
use crate::accounts::{Accounts, Home, HttpCheck};
use crate::maildrop::{DeletePolicy, MessageIndex, Outcome, Portion, Update};
use crate::metrics::{Counted, Metrics, SessionEnd};
use crate::pop3::{Announced, Framed, Front, Input, Refusal, Response, Session, Step};
use crate::sasl::{Credentials, Mechanism};
use crate::upstream::{Reason, Upstream, UpstreamError, Upstreams};

/// What all connections share.
pub(super) struct Context {
    pub config: Config,
    pub upstreams: Arc<Upstreams>,
    pub accounts: Option<Arc<Accounts>>,
    pub http_check: Option<HttpCheck>,
    pub metrics: Arc<Metrics>,
    pub locks: Arc<Locks>,
    pub guard: Guard,
    pub held_up: HeldUp,
    pub delays: LoginDelays,
    /// How somebody without an account of popgate's own may log in.
    pub logins: HashSet<Login>,
    /// What CAPA says of LOGIN-DELAY and EXPIRE before login.
    pub login_delay: Option<Announced>,
    pub expire: Option<Announced>,
    /// KiB of messages that may be held in memory.
    pub budget: Arc<Semaphore>,
    /// Cancelled when popgate is to stop.
    pub shutdown: CancellationToken,
    /// Cancelled when the time to stop is over.
    pub halt: CancellationToken,
}

impl Context {
    /// What logs call the gateway's own upstream.
    pub fn upstream_name(&self) -> &str {
        self.upstreams.gateway().map_or("none", |it| it.name())
    }

    /// Where mailboxes are.
    pub fn upstream_of(&self, home: &Home) -> Result<Arc<dyn Upstream>, UpstreamError> {
        let url = match home {
            Home::Gateway => {
                let gateway = self.upstreams.gateway().cloned();
                let none = || UpstreamError::Misconfigured("no upstream is configured".into());
                return gateway.ok_or_else(none);
            }
            Home::Provider(name) => {
                let accounts = self.accounts.as_ref();
                let provider = accounts.and_then(|accounts| accounts.provider(name));
                let none = || Reason::quoting("there is no provider of this name", name);
                let provider = provider.ok_or_else(|| UpstreamError::Misconfigured(none()));
                &provider?.upstream
            }
            Home::Upstream(url) => url,
        };
        self.upstreams.at(url)
    }

    /// Whether somebody could log in by this mechanism.
    fn accepts(&self, mechanism: Mechanism) -> bool {
        let takes_password = mechanism.takes_password();
        let is_judged_here = self.accounts.is_some() && takes_password;
        let is_passed_on = |login: &Login| match login.by {
            Judge::Upstream => {
                let upstream = self.upstream_of(&login.home);
                upstream.is_ok_and(|upstream| upstream.accepts(mechanism))
            }
            Judge::Http => takes_password,
            Judge::Accounts => false,
        };
        is_judged_here || self.logins.iter().any(is_passed_on)
    }
}

/// Serves one client until its session ends.
pub(super) async fn serve(
    context: Arc<Context>,
    client: Client,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    tls_active: bool,
    record: Record,
) {
    let front = Front {
        tls_active,
        stls_available: certificates.is_some(),
        cleartext_login: context.config.allow_cleartext,
        mechanisms: Mechanism::ALL
            .into_iter()
            .filter(|mechanism| context.accepts(*mechanism))
            .collect(),
        bad_command_limit: context.config.limits.bad_commands,
        login_delay: context.login_delay,
        expire: context.expire,
    };
    let driver = Driver {
        login_deadline: Instant::now() + context.config.timeouts.login,
        last_activity: Instant::now(),
        context,
        client,
        peer,
        certificates,
        upstream: None,
        lock: None,
        record,
        attempts: 0,
    };
    driver.run(Session::new(front)).await;
}

struct Driver {
    context: Arc<Context>,
    client: Client,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    upstream: Option<UpstreamConnection>,
    lock: Option<Lock>,
    login_deadline: Instant,
    /// When a command was last dealt with, and its answer sent.
    last_activity: Instant,
    record: Record,
    /// Logins that were tried.
    attempts: u32,
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
        self.record.end(end);
        // Only these come while the client may still be sending.
        let linger = matches!(end, SessionEnd::Quit | SessionEnd::BadCommands);
        let farewell = async {
            if let Some(upstream) = &mut self.upstream {
                upstream.session.close().await;
            }
        };
        // First what keeps the upstream's connection for the next session, which
        // begins as soon as the client has its last answer.
        tokio::join!(biased; farewell, self.client.close(linger));
    }

    async fn converse(&mut self, mut session: Session) -> SessionEnd {
        loop {
            let (mut now, mut step) = match self.client.lines.next(session.expects()) {
                Some(Framed::Line(line)) => session.handle(Input::Line(line)),
                Some(Framed::TooLong) => session.handle(Input::LineTooLong),
                None => match self.listen(&session).await {
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
            self.last_activity = Instant::now();
        }
    }

    /// Sends what is due and waits for the client to send more.
    async fn listen(&mut self, session: &Session) -> Result<(), SessionEnd> {
        if !self.client.out().is_empty() {
            let evicted = self.evicted();
            let flushed = {
                let flush = pin!(self.client.flush());
                unless_evicted(evicted, flush).await
            };
            match flushed {
                Some(flushed) => flushed?,
                None => {
                    self.client.abort();
                    return Err(SessionEnd::Takeover);
                }
            }
            self.last_activity = Instant::now();
        }
        let (deadline, late) = if session.is_authorization() {
            (self.login_deadline, SessionEnd::LoginTimeout)
        } else {
            (
                self.last_activity + self.context.config.timeouts.idle,
                SessionEnd::Idle,
            )
        };
        let evicted = self.evicted();
        let read = pin!(self.client.read(deadline));
        tokio::select! {
            () = self.context.shutdown.cancelled() => Err(SessionEnd::Shutdown),
            read = unless_evicted(evicted, read) => match read {
                Some(Ok(true)) => Ok(()),
                Some(Ok(false)) => Err(late),
                Some(Err(gone)) => Err(gone.into()),
                None => Err(SessionEnd::Takeover),
            }
        }
    }

    /// What logs call the upstream of this session.
    fn upstream_name(&self) -> &str {
        let upstream = self.upstream.as_ref().map(|it| it.upstream.name());
        upstream.unwrap_or_else(|| self.context.upstream_name())
    }

    /// Cancelled when another session takes the maildrop over.
    fn evicted(&self) -> Option<CancellationToken> {
        self.lock.as_ref().map(|lock| lock.evicted().clone())
    }

    async fn take(&mut self, session: &mut Session, step: Step) -> Next {
        let evicted = self.evicted();
        // Once it has begun it runs to its end, whether or not the client still
        // waits.
        if let Step::Update(update) = step {
            return self.update(session, &update).await;
        }
        let taken = {
            let step = pin!(self.try_step(session, step));
            unless_evicted(evicted, step).await
        };
        let taken = match taken {
            Some(taken) => taken,
            None => {
                self.client.abort();
                return Next::End(SessionEnd::Takeover);
            }
        };
        taken.unwrap_or_else(|gone| Next::End(gone.into()))
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
                return Ok(Box::pin(self.start_tls()).await);
            }
            Step::Open(credentials) => {
                self.client.flush().await?;
                return Ok(Box::pin(self.open(credentials)).await);
            }
            Step::Deliver {
                index,
                octets,
                portion,
            } => {
                // Too large to be kept where every session has it.
                let delivery = Box::pin(self.deliver(index, octets, portion));
                return Ok(delivery.await);
            }
            Step::Update(update) => return Ok(self.update(session, &update).await),
            Step::Close(response) => return Ok(Next::End(self.close(session, &response))),
        }
        self.client.flush_if_large().await?;
        Ok(Next::Wait)
    }

    async fn start_tls(&mut self) -> Next {
        let Some(certificates) = &self.certificates else {
            return Next::End(SessionEnd::Internal);
        };
        let patience = self.context.config.timeouts.handshake;
        let handshake = self
            .client
            .start_tls(certificates.server_config(), patience);
        let shutdown = &self.context.shutdown;
        match shutdown.run_until_cancelled(handshake).await {
            Some(Ok(())) => Next::Input(Input::TlsStarted),
            Some(Err(error)) => {
                debug!(client = %self.peer, reason = shown(&error.to_string()), "TLS handshake failed");
                self.context.metrics.tls_handshake_failures.inc();
                Next::End(SessionEnd::Tls)
            }
            None => Next::End(SessionEnd::Shutdown),
        }
    }

    /// Logs in upstream, locks the maildrop and lists it. What the upstream
    /// takes for this is not the client's time.
    async fn open(&mut self, credentials: Credentials) -> Next {
        let began = Instant::now();
        self.attempts = self.attempts.saturating_add(1);
        let context = &self.context;
        let (policies, accounts) = (&context.config.policies, context.accounts.as_deref());
        let claimed = Claim::of(policies, accounts, credentials.clone()).await;
        let (user, maildrop) = claim::named(&credentials, &claimed);
        let opening = Opening {
            context: Arc::clone(&self.context),
            client: self.peer.ip(),
            tls_active: self.client.is_encrypted(),
            attempt: self.attempts,
            user: user.to_owned(),
            maildrop: maildrop.map(str::to_owned),
        };
        self.record.user = Some(opening.user.clone());
        self.record.maildrop = opening.maildrop.clone();
        let opening = Box::pin(opening.open(credentials, claimed));
        let shutdown = self.context.shutdown.clone();
        let opening = self.client.stays_while(opening);
        let Some(opened) = shutdown.run_until_cancelled(opening).await else {
            return Next::Input(Input::Refused(refusal::stopping()));
        };
        self.login_deadline += began.elapsed();
        let refused = match opened {
            None => return Next::End(SessionEnd::Disconnected),
            Some(Ok(opened)) => {
                let Opened {
                    upstream,
                    lock,
                    maildrop,
                    terms,
                    folders,
                    shared,
                } = opened;
                self.record.upstream = Some(Arc::clone(&upstream.upstream));
                self.upstream = Some(upstream);
                self.lock = Some(lock);
                self.record.opened(folders, shared);
                return Next::Input(Input::Opened(maildrop, terms));
            }
            Some(Err(refused)) => refused,
        };
        if let Some(not_before) = refused.not_before {
            let context = Arc::clone(&self.context);
            let held = context.held_up.enter();
            let _counted = Counted::new(&context.metrics.logins_held_up);
            let delay = tokio::time::timeout_at(not_before, held.gives_way().cancelled());
            let delay = self.client.stays_while(delay);
            match shutdown.run_until_cancelled(delay).await {
                Some(None) => return Next::End(SessionEnd::Disconnected),
                Some(Some(Ok(()))) => {
                    self.client.abort();
                    return Next::End(SessionEnd::Crowded);
                }
                Some(Some(Err(_))) | None => {}
            }
        }
        Next::Input(Input::Refused(refused.refusal))
    }

    async fn deliver(&mut self, index: MessageIndex, octets: u64, portion: Portion) -> Next {
        let Some(upstream) = &mut self.upstream else {
            return Next::End(SessionEnd::Internal);
        };
        let matters = upstream.policy.heeds_deliveries() && portion == Portion::Whole;
        let name = upstream.upstream.name().to_owned();
        let upstream = &mut *upstream.session;
        let context = &self.context;
        let mut delivered =
            delivery::deliver(context, upstream, &mut self.client, index, octets, portion).await;
        // What is still here was not delivered; and the client does not wait
        // for what is done about it upstream.
        if matters
            && delivered.is_ok()
            && let Err(gone) = self.client.flush().await
        {
            delivered = Err(Failure::Client(gone));
        }
        match delivered {
            Ok(delivered) => {
                self.record.octets += delivered.octets;
                context.metrics.octets_retrieved.inc_by(delivered.octets);
                if portion != Portion::Whole {
                    return Next::Input(Input::Delivered { octets: None });
                }
                self.record.retrieved += 1;
                context.metrics.messages_retrieved.inc();
                upstream.delivered(index, delivered.octets).await;
                Next::Input(Input::Delivered {
                    octets: Some(delivered.octets),
                })
            }
            Err(Failure::BeforeReply(error)) => {
                let whose = self.record.whose();
                note(context, &name, whose, self.peer.ip(), "retrieve", &error);
                Next::Input(Input::NotDelivered(refusal_in_session(&error)))
            }
            Err(Failure::Midway(error)) => {
                let whose = self.record.whose();
                note(context, &name, whose, self.peer.ip(), "retrieve", &error);
                self.client.abort();
                Next::End(SessionEnd::Upstream)
            }
            Err(Failure::Client(gone)) => {
                self.client.abort();
                Next::End(gone.into())
            }
        }
    }

    /// The UPDATE state (RFC 1939 §6).
    async fn update(&mut self, session: &Session, update: &Update) -> Next {
        let _ = self.client.flush().await;
        let outcome = match &mut self.upstream {
            Some(upstream) => upstream.session.update(update).await,
            None => Err(UpstreamError::temporary("no upstream session")),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            let upstream = self.upstream_name();
            let whose = self.record.whose();
            note(
                &self.context,
                upstream,
                whose,
                self.peer.ip(),
                "update",
                &error,
            );
            Outcome {
                remaining: update.delete().to_vec(),
                ..Outcome::default()
            }
        });
        // A notice is no mail.
        if !self.upstream.as_ref().is_some_and(|it| it.is_notice) {
            let removed = outcome.removed.len() as u64;
            self.record.deleted += removed;
            self.context.metrics.messages_deleted.inc_by(removed);
            self.audit(session, &outcome);
            self.keep_listing(session, &outcome);
        }
        if !outcome.remaining.is_empty() {
            let (user, maildrop) = self.record.whose();
            warn!(
                user,
                maildrop,
                client = %self.peer.ip(),
                upstream = self.upstream_name(),
                messages = outcome.remaining.len(),
                "messages not removed"
            );
        }
        Next::Input(Input::Updated(outcome))
    }

    /// What the client has removed it is never shown again, even where the mailbox
    /// does not open the next time.
    fn keep_listing(&self, session: &Session, outcome: &Outcome) {
        let (Some(maildrop), Some(upstream)) = (session.maildrop(), &self.upstream) else {
            return;
        };
        let removed: HashSet<&MessageIndex> = match upstream.policy.delete {
            DeletePolicy::Seen => outcome.expired.iter().collect(),
            _ => outcome.removed.iter().chain(&outcome.expired).collect(),
        };
        if let Some(shown) = &upstream.listing
            && !removed.is_empty()
        {
            let rest = maildrop.iter().filter(|it| !removed.contains(&it.index));
            let listings = self.context.upstreams.listings();
            listings.keep(shown, &self.record.names, rest);
        }
    }

    /// One line for each message that an update dealt with.
    fn audit(&self, session: &Session, outcome: &Outcome) {
        let (Some(messages), Some(upstream)) = (session.maildrop(), &self.upstream) else {
            return;
        };
        let removal = match upstream.policy.delete {
            DeletePolicy::Hide => "message hidden",
            DeletePolicy::Seen => "message marked as read",
            DeletePolicy::TrashIfThere
            | DeletePolicy::Trash
            | DeletePolicy::Archive
            | DeletePolicy::Move(_)
            | DeletePolicy::Expunge
            | DeletePolicy::Refuse => "message removed",
        };
        let removed = outcome.removed.iter().map(|index| (index, removal));
        let expired = outcome
            .expired
            .iter()
            .map(|index| (index, "message expired"));
        let (user, maildrop) = self.record.whose();
        for (index, what) in removed.chain(expired) {
            let Some(message) = messages.get(*index) else {
                continue;
            };
            info!(
                target: "popgate::audit",
                user,
                maildrop,
                folders = self.record.folders(),
                client = %self.peer.ip(),
                upstream = upstream.upstream.name(),
                unique_id = message.unique_id,
                octets = message.octets,
                "{what}"
            );
        }
    }

    fn close(&mut self, session: &Session, response: &Response) -> SessionEnd {
        // A client that logs in again at once must not find its own lock.
        self.lock = None;
        response.write_to(self.client.out());
        match session {
            Session::Update(_) => SessionEnd::Quit,
            Session::Authorization(_) if response.is_ok() => SessionEnd::Quit,
            Session::Authorization(_) | Session::Transaction(_) => SessionEnd::BadCommands,
        }
    }
}

/// Does the work unless another session takes the maildrop over (`None`).
async fn unless_evicted<F: Future>(
    evicted: Option<CancellationToken>,
    work: Pin<&mut F>,
) -> Option<F::Output> {
    let Some(evicted) = evicted else {
        return Some(work.await);
    };
    tokio::select! {
        biased;
        () = evicted.cancelled() => None,
        done = work => Some(done),
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
