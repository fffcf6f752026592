//! Connections at rest between sessions, each for the next login with the same
//! credentials. Other credentials never come near one: they go upstream.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Event};
use super::folders::Layout;
use super::idle::Idling;
use super::login::Capabilities;
use super::status::Kind;
use super::vouching::{ASKED, Seen};
use crate::maildrop::Policy;
use crate::metrics::Counted;
use crate::sasl::{Credentials, Digest, DigestKey};
use crate::upstream::habits::{Habits, Plan, Turn};
use crate::upstream::{Rest, UpstreamError};

/// A login within this time finds a connection that was never told to IDLE.
const BEFORE_IDLE: Duration = Duration::from_millis(50);
/// So long after its login a connection is used no more: the server says again
/// whether the credentials are good, and what folders there are.
const LEASE: Duration = Duration::from_secs(60 * 60);
/// IDLE is begun anew after this: a server may take who idles for half an hour
/// for gone (RFC 2177 §3).
const IDLE: Duration = Duration::from_secs(25 * 60);
/// A server that has not answered IDLE by then answers nothing.
const IDLE_ANSWER: Duration = Duration::from_secs(30);
/// A server that has ended IDLE by itself is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// How long before a login is expected the server is asked.
const LEAD: Duration = Duration::from_secs(15);
/// More than this a server does not say to a connection at rest.
const MOST_EVENTS: usize = 10_000;
/// How long LOGOUT may take; nobody waits for it …
const LOGOUT: Duration = Duration::from_secs(5);
/// … but a login that the server refused because there are too many, …
const ROOM: Duration = Duration::from_secs(2);
/// … and the end of the program.
const CLOSING: Duration = Duration::from_secs(1);

/// The connections at rest of one upstream.
#[derive(Debug)]
pub(super) struct Resting {
    rest: Rest,
    /// `None`: the system gave no random numbers, and nothing rests.
    key: Option<DigestKey>,
    /// The server announces IDLE, and yet has refused it.
    refuses_idle: AtomicBool,
    state: Mutex<State>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    /// Those least recently used first.
    entries: VecDeque<Entry>,
    habits: Habits,
    last_number: u64,
    is_closed: bool,
}

/// Whom a connection at rest is for: all of this is the same, or it is not for
/// that login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bond {
    credentials: Digest,
    account: String,
    /// Where the upstream was told the client's address.
    client: Option<IpAddr>,
    policy: Arc<Policy>,
    habit: Digest,
}

/// What of a session rests. No credentials are in it.
pub(super) struct Rested {
    pub connection: Connection,
    pub capabilities: Capabilities,
    pub layout: Option<Layout>,
    /// The folders' names, if they were looked for.
    pub names: Vec<String>,
    /// When the server accepted the credentials.
    pub logged_in: Instant,
    /// The folder as the session saw it, if that may be of use.
    pub seen: Option<Seen>,
}

impl fmt::Debug for Rested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rested")
    }
}

/// A connection at rest, which a task holds.
#[derive(Debug)]
struct Entry {
    number: u64,
    bond: Bond,
    /// Asks the task for the connection. Dropped, it tells it to log out.
    call: oneshot::Sender<oneshot::Sender<Box<Rested>>>,
    /// Says that the connection is closed, by its own end.
    ended: oneshot::Receiver<()>,
    _counted: Counted,
}

impl Default for Resting {
    fn default() -> Self {
        Self::new(Rest::OFF)
    }
}

impl Resting {
    pub fn new(rest: Rest) -> Self {
        let rest = rest.as_descriptors_allow();
        let is_off = rest.longest.is_zero() || rest.most == 0 || rest.per_account == 0;
        let key = (!is_off).then(DigestKey::generate);
        Self {
            rest,
            key: key.and_then(Result::ok),
            refuses_idle: AtomicBool::new(false),
            state: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Whom the connection of a login is for; `None` where none rests.
    pub fn bond(
        &self,
        credentials: &Credentials,
        client: Option<IpAddr>,
        policy: &Arc<Policy>,
    ) -> Option<Bond> {
        let key = self.key.as_ref()?;
        let account = credentials.mailbox();
        let mut fields = vec!["habit", account];
        fields.extend(policy.folders.iter().map(|folder| folder.as_str()));
        Some(Bond {
            credentials: key.credentials(credentials),
            account: account.to_owned(),
            client,
            policy: Arc::clone(policy),
            habit: key.fields(&fields),
        })
    }

    /// A login succeeded.
    pub fn logged_in(&self, bond: &Bond) -> Turn {
        self.state().habits.logged_in(bond.habit, Instant::now())
    }

    /// Takes over a connection of these very credentials, the one that was last
    /// put to rest. Nobody else gets it.
    pub async fn take(&self, bond: &Bond) -> Option<Box<Rested>> {
        loop {
            let entry = {
                let mut state = self.state();
                let place = state.entries.iter().rposition(|it| it.bond == *bond)?;
                state.entries.remove(place)?
            };
            let (reply, rested) = oneshot::channel();
            // One that has just ended is none.
            if entry.call.send(reply).is_ok()
                && let Ok(rested) = rested.await
            {
                return Some(rested);
            }
        }
    }

    /// Puts a connection to rest, or gives it back where it may not.
    pub fn rest(
        self: &Arc<Self>,
        bond: Bond,
        rested: Box<Rested>,
        counted: Counted,
    ) -> Result<(), Box<Rested>> {
        let mut leaving = Vec::new();
        let mut state = self.state();
        let now = Instant::now();
        let plan = state.habits.plan(bond.habit, self.rest.longest, now);
        let lease = rested.logged_in + LEASE;
        let may_rest = self.key.is_some() && !state.is_closed && lease > now;
        let Some(mut plan) = plan.filter(|_| may_rest) else {
            return Err(rested);
        };
        plan.until = plan.until.min(lease);
        let of_account = |entries: &VecDeque<Entry>| {
            let mut places = (0..)
                .zip(entries)
                .filter(|(_, it)| it.bond.account == bond.account);
            let first = places.next().map(|(place, _): (usize, _)| place);
            (first, usize::from(first.is_some()) + places.count())
        };
        while let (Some(first), count) = of_account(&state.entries)
            && count >= self.rest.per_account
        {
            leaving.extend(state.entries.remove(first));
        }
        while state.entries.len() >= self.rest.most {
            leaving.extend(state.entries.pop_front());
        }
        state.last_number += 1;
        let number = state.last_number;
        let (call, called) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        state.entries.push_back(Entry {
            number,
            bond,
            call,
            ended,
            _counted: counted,
        });
        let attendant = Attendant {
            resting: Arc::downgrade(self),
            number,
            called,
            plan,
            // Under a load, polls are to be vouched for, however soon they come.
            before_idle: match state.habits.is_busy() {
                true => Duration::ZERO,
                false => BEFORE_IDLE,
            },
            _ending: ending,
        };
        self.tasks.spawn(attendant.attend(rested));
        drop(state);
        drop(leaving);
        Ok(())
    }

    /// Closes what rests for the account, so that the server counts it no
    /// longer; where nothing does, whatever was least recently used. Whether
    /// there was anything.
    pub async fn make_room(&self, account: &str) -> bool {
        let mut leaving = Vec::new();
        {
            let mut state = self.state();
            let (own, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.entries)
                .into_iter()
                .partition(|it| it.bond.account == account);
            state.entries = others;
            leaving.extend(own);
            if leaving.is_empty() {
                leaving.extend(state.entries.pop_front());
            }
        }
        let any = !leaving.is_empty();
        let ended = leaving.into_iter().map(|entry| {
            drop(entry.call);
            entry.ended
        });
        let all = futures_util::future::join_all(ended);
        let _ = timeout(ROOM, all).await;
        any
    }

    /// Closes all of them, for good.
    pub async fn close(&self) {
        let leaving = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.entries)
        };
        drop(leaving);
        self.tasks.close();
        let _ = timeout(CLOSING, self.tasks.wait()).await;
    }

    fn remove(&self, number: u64) {
        let mut state = self.state();
        state.entries.retain(|entry| entry.number != number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that holds a connection at rest.
struct Attendant {
    /// Where the entry is; when that is dropped, so is the entry.
    resting: Weak<Resting>,
    number: u64,
    called: oneshot::Receiver<oneshot::Sender<Box<Rested>>>,
    plan: Plan,
    /// How long it rests before it idles.
    before_idle: Duration,
    _ending: oneshot::Sender<()>,
}

impl Attendant {
    async fn attend(mut self, mut rested: Box<Rested>) {
        let is_well = tokio::select! {
            biased;
            called = &mut self.called => match called {
                Ok(reply) => {
                    // Where the login has been given up, this closes it.
                    let _ = reply.send(rested);
                    return;
                }
                Err(_) => true,
            },
            () = sleep_until(self.plan.until) => true,
            _ = rested.keep(&self.resting, self.plan, self.before_idle) => false,
        };
        // Whoever has just asked for it need not wait until it has logged out.
        drop(self.called);
        if let Some(resting) = self.resting.upgrade() {
            resting.remove(self.number);
        }
        if is_well {
            rested.connection.logout(LOGOUT).await;
        }
    }
}

impl Rested {
    /// Holds the connection, and hears what the server says, until it ends.
    async fn keep(
        &mut self,
        resting: &Weak<Resting>,
        plan: Plan,
        before_idle: Duration,
    ) -> Result<(), UpstreamError> {
        let mut idles = self.capabilities.has("IDLE")
            && !resting
                .upgrade()
                .is_some_and(|it| it.refuses_idle.load(Ordering::Relaxed));
        let mut begin = Instant::now() + before_idle;
        for _ in 0..MOST_EVENTS {
            let before = self.connection.idling();
            let due = match before {
                Idling::No => Some(begin).filter(|_| idles),
                Idling::Begun(_, since) | Idling::Ending(_, since) => Some(since + IDLE_ANSWER),
                Idling::Confirmed(_, since) => {
                    let proof = self.proof_due(plan);
                    Some(proof.map_or(since + IDLE, |proof| proof.min(since + IDLE)))
                }
            };
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = self.connection.overhear() => {
                    let heard = heard?;
                    let has_ended = matches!(heard, Event::Done(..));
                    match before {
                        Idling::Begun(..) if has_ended => {
                            idles = false;
                            if let Some(resting) = resting.upgrade() {
                                resting.refuses_idle.store(true, Ordering::Relaxed);
                            }
                        }
                        // One that ends it by itself may do so at once again.
                        Idling::Confirmed(..) if has_ended => begin = Instant::now() + AGAIN,
                        Idling::Ending(..) if has_ended => {
                            begin = Instant::now();
                            self.is_proved_by(&heard);
                        }
                        _ => {}
                    }
                }
                () = is_due => match before {
                    Idling::No => self.connection.begin_idle(),
                    Idling::Confirmed(..) => self.connection.renew_idle(),
                    Idling::Begun(..) | Idling::Ending(..) => return Ok(()),
                },
            }
        }
        Ok(())
    }
    /// When the server is to be asked whether all is as it was: shortly before
    /// the next login is expected, and again while that is late.
    fn proof_due(&self, plan: Plan) -> Option<Instant> {
        let seen = self.seen.as_ref()?;
        let expected = plan.expected.filter(|_| !self.connection.has_news())?;
        let soon = expected.checked_sub(LEAD)?;
        Some(soon.max(seen.asked + (ASKED - LEAD)))
    }

    /// The server has answered whether all is as it was, if that was the last of
    /// the answers due. Without an OK it is not known.
    fn is_proved_by(&mut self, answer: &Event) {
        if self.connection.idling() == Idling::No {
            let is_ok = matches!(answer, Event::Done(_, status) if status.kind == Kind::Ok);
            self.seen = self.seen.take().filter(|_| is_ok);
            if let Some(seen) = &mut self.seen {
                seen.asked = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::imap::config::{Limits, Timeouts};
    use crate::upstream::transport::Stream;

    /// A connection at rest, its mailbox open and listed, and its server.
    async fn rested(asked: Instant) -> (Rested, BufReader<TcpStream>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stream = Stream::Left(client.unwrap());
        let mut server = BufReader::new(server.unwrap().0);
        let mut connection = Connection::new(stream, Limits::default(), Timeouts::default());
        let select = async {
            let examine = super::super::command::Command::new("EXAMINE").word("INBOX");
            connection.run(examine, |_| Ok(())).await.unwrap();
        };
        let answer = async {
            heard(&mut server, "EXAMINE INBOX").await;
            say(&mut server, "* 0 EXISTS\r\nP1 OK done\r\n").await;
        };
        tokio::join!(select, answer);
        connection.listed(0, false);
        let rested = Rested {
            connection,
            capabilities: Capabilities::new(&["IDLE".to_owned()]),
            layout: None,
            names: vec!["INBOX".to_owned()],
            logged_in: Instant::now(),
            seen: Some(Seen::of_nothing(asked)),
        };
        (rested, server)
    }

    /// The next line, which must be this command or DONE; its tag.
    async fn heard(server: &mut BufReader<TcpStream>, command: &str) -> String {
        let mut line = String::new();
        server.read_line(&mut line).await.unwrap();
        let (tag, given) = line
            .trim_end()
            .split_once(' ')
            .unwrap_or(("", line.trim_end()));
        assert_eq!(given, command);
        tag.to_owned()
    }

    async fn say(server: &mut BufReader<TcpStream>, text: &str) {
        server.write_all(text.as_bytes()).await.unwrap();
    }

    fn ago(seconds: u64) -> Instant {
        let ago = Instant::now().checked_sub(Duration::from_secs(seconds));
        ago.unwrap()
    }

    fn plan(expected: Instant) -> Plan {
        Plan {
            expected: Some(expected),
            until: Instant::now() + LEASE,
        }
    }

    #[tokio::test]
    async fn a_server_is_asked_shortly_before_a_login_is_expected() {
        let (rested, _server) = rested(ago(0)).await;
        let asked = rested.seen.as_ref().unwrap().asked;
        let in_seconds = |seconds: u64| asked + Duration::from_secs(seconds);
        let due = |expected| rested.proof_due(plan(expected));
        assert_eq!(due(in_seconds(300)), Some(in_seconds(285)));
        // Not again while it holds.
        assert_eq!(due(in_seconds(10)), Some(in_seconds(45)));
        let unknown = Plan {
            expected: None,
            until: in_seconds(300),
        };
        assert_eq!(rested.proof_due(unknown), None);
    }

    #[tokio::test]
    async fn the_answer_is_a_proof_unless_it_is_no_ok() {
        for (answer, holds) in [("OK", true), ("NO", false), ("BAD", false)] {
            let (mut rested, mut server) = rested(ago(50)).await;
            let asked = rested.seen.as_ref().unwrap().asked;
            let nobody = Weak::new();
            let conversation = async {
                let idle = heard(&mut server, "IDLE").await;
                say(&mut server, "+ idling\r\n").await;
                heard(&mut server, "DONE").await;
                let noop = heard(&mut server, "NOOP").await;
                say(&mut server, &format!("{idle} OK idled\r\n")).await;
                say(&mut server, &format!("{noop} {answer} done\r\n")).await;
                heard(&mut server, "IDLE").await;
            };
            tokio::select! {
                _ = rested.keep(&nobody, plan(Instant::now()), BEFORE_IDLE) => panic!("it ends"),
                () = conversation => {}
            }
            assert!(rested.connection.is_usable());
            assert_eq!(rested.seen.is_some(), holds, "{answer}");
            if let Some(seen) = &rested.seen {
                assert!(seen.asked > asked);
            }
        }
    }

    #[tokio::test]
    async fn a_command_behind_the_question_is_not_confused_by_its_answers() {
        let (mut rested, mut server) = rested(ago(50)).await;
        let nobody = Weak::new();
        let mut noop = String::new();
        let mut idle = String::new();
        let conversation = async {
            idle = heard(&mut server, "IDLE").await;
            say(&mut server, "+ idling\r\n").await;
            heard(&mut server, "DONE").await;
            noop = heard(&mut server, "NOOP").await;
        };
        tokio::select! {
            _ = rested.keep(&nobody, plan(Instant::now()), BEFORE_IDLE) => panic!("it ends"),
            () = conversation => {}
        }
        // Taken over before the server has answered.
        let connection = &mut rested.connection;
        assert!(connection.is_usable());
        let mut events = 0;
        let run = async {
            let command = super::super::command::Command::new("CHECK");
            let hear = |_| {
                events += 1;
                Ok(())
            };
            connection.run(command, hear).await.unwrap();
        };
        let answer = async {
            let check = heard(&mut server, "CHECK").await;
            let before = format!("{idle} OK idled\r\n* 1 EXISTS\r\n{noop} OK done\r\n");
            say(&mut server, &before).await;
            say(&mut server, &format!("* 2 EXISTS\r\n{check} OK done\r\n")).await;
        };
        tokio::join!(run, answer);
        assert_eq!(events, 1);
        assert!(rested.connection.has_news());
        assert!(rested.connection.is_usable());
    }
}
