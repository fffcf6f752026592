//! Fetching message text: a stream of chunks that ends well only behind the
//! exact octets announced and the command's own OK.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::ahead::{Ahead, CHEAP, Claimed};
use super::command::Command;
use super::connection::{Connection, Event, Tag, uid_validity};
use super::fetch::{BodyStart, Section};
use super::session::ImapSession;
use super::status::Kind;
use super::uid_set::UidSet;
use crate::maildrop::{MessageIndex, Portion};
use crate::upstream::{Body, UpstreamError};

/// A message of up to this many octets is fetched whole for TOP.
const SMALL: u64 = 16 * 1024;
/// The first part fetched for TOP; each further one doubles it.
const FIRST_PART: u64 = 16 * 1024;
/// The largest part.
const LARGEST_PART: u64 = 1024 * 1024;
/// How Courier begins the text that it makes up for a message which another
/// client has removed meanwhile. A real message may begin so, too.
const STAND_IN: &[u8] =
    b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n";
/// Asked for beyond the listed end, which may be an estimate.
const SLACK: u64 = 64 * 1024;
/// An answer of up to this many octets is given out when it is whole and
/// confirmed where the caller may have enough of it before that shows, and where
/// it could still be asked for again.
const HELD: u64 = 64 * 1024;
/// Octets a second that a body must bring, on average and beyond the time that
/// any command has. Only the time spent waiting for the upstream counts.
const SLOWEST: u64 = 500;

/// What to fetch of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Whole,
    Header,
    /// `octets` from `first` on; whether more parts follow is seen by its length.
    Part {
        first: u64,
        octets: u64,
    },
}

impl Plan {
    /// How to begin with a message of so many octets.
    pub fn of(listed: u64, portion: Portion) -> Self {
        match portion {
            Portion::Whole => Self::Whole,
            Portion::Top { lines: 0 } => Self::Header,
            Portion::Top { .. } if listed <= SMALL => Self::Whole,
            Portion::Top { .. } => part(0, FIRST_PART, listed),
        }
    }

    /// The command that asks for it.
    pub fn command(self, uid: u32) -> Command {
        let (section, part) = match self {
            Self::Whole => ("", None),
            Self::Header => ("HEADER", None),
            Self::Part { first, octets } => ("", Some((first, octets))),
        };
        Command::new("UID FETCH")
            .set(&UidSet::one(uid))
            .peek(section, part)
    }
}

/// A message being fetched.
pub(super) struct Retrieval {
    message: MessageIndex,
    portion: Portion,
    folder: usize,
    uid: u32,
    listed: u64,
    plan: Plan,
    tag: Option<Tag>,
    /// It was asked for ahead of the client.
    claimed: bool,
    /// What came of the answer before the client asked.
    early: VecDeque<Event>,
    /// When it was asked for, if not ahead, until it is answered.
    sent: Option<Instant>,
    /// Octets of the current answer, once announced.
    announced: Option<u64>,
    /// Octets of the current answer that have not come.
    left: u64,
    /// Octets of an answer that begins too early, to be passed over.
    skip: u64,
    /// The answer's text came to its end.
    ended: bool,
    /// The answer was for this message.
    matched: bool,
    /// Time spent waiting for the current answer.
    waited: Duration,
    /// The same, with that in which answers to others came; and the octets of all
    /// of them.
    spent: Duration,
    heard: u64,
    /// Octets of the current answer that have come.
    received: u64,
    /// So far the text is [`STAND_IN`].
    stands_in: bool,
    /// The current answer's text, where it is held until it is confirmed.
    held: Option<Held>,
    /// Read ahead while the retrieval began.
    first: Option<Bytes>,
    state: State,
}

/// Text that comes in pieces, most often in one.
#[derive(Default)]
struct Held {
    first: Bytes,
    all: BytesMut,
}

impl Held {
    fn push(&mut self, octets: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = octets;
            return;
        }
        // A piece keeps the buffer that it was read into.
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&octets);
    }

    fn octets(self) -> Bytes {
        match self.all.is_empty() {
            true => self.first,
            false => self.all.freeze(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// This part is still to be asked for.
    Between(Plan),
    Complete,
}

impl Retrieval {
    /// Of the message at this place: folder and UID.
    pub fn new(
        message: MessageIndex,
        (folder, uid): (usize, u32),
        listed: u64,
        portion: Portion,
    ) -> Self {
        Self {
            message,
            portion,
            folder,
            uid,
            listed,
            plan: Plan::of(listed, portion),
            tag: None,
            claimed: false,
            early: VecDeque::new(),
            sent: None,
            announced: None,
            left: 0,
            skip: 0,
            ended: false,
            matched: false,
            waited: Duration::ZERO,
            spent: Duration::ZERO,
            heard: 0,
            received: 0,
            stands_in: true,
            held: None,
            first: None,
            state: State::Running,
        }
    }

    /// Sends the command and waits until there is text, or there is none: a
    /// message that is gone, or a connection that broke, shows here, before the
    /// client was told anything.
    pub async fn begin(mut self, session: &mut ImapSession) -> Result<Self, UpstreamError> {
        match session.claim(self.folder, self.uid, self.plan).await {
            Some(Claimed { tag, early }) => {
                self.tag = Some(tag);
                self.early = early;
                self.claimed = true;
            }
            None => {
                let connection = session.ready(self.folder).await?;
                self.send(connection).await?;
            }
        }
        session.read_on(self.message, self.portion).await?;
        session.ahead.involve(self.claimed);
        self.first = self.advance(session).await?;
        Ok(self)
    }

    async fn send(&mut self, connection: &mut Connection) -> Result<(), UpstreamError> {
        self.announced = None;
        self.left = 0;
        self.skip = 0;
        self.ended = false;
        self.matched = false;
        self.waited = Duration::ZERO;
        self.spent = Duration::ZERO;
        self.heard = 0;
        self.received = 0;
        self.stands_in = true;
        self.held = None;
        self.claimed = false;
        self.sent = Some(Instant::now());
        self.tag = Some(connection.send(self.plan.command(self.uid)).await?);
        Ok(())
    }

    /// The next octets of the message; `None` once all are there and confirmed.
    async fn advance(&mut self, session: &mut ImapSession) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            match self.state {
                State::Running => {}
                State::Between(next) => {
                    self.plan = next;
                    if session.ahead.is_involved() {
                        session.ahead.miss();
                    }
                    self.send(session.ready(self.folder).await?).await?;
                    self.state = State::Running;
                }
                State::Complete => return Ok(None),
            }
            let Some(connection) = session.connection.as_mut() else {
                return Err(UpstreamError::temporary("the connection is lost"));
            };
            let event = match self.early.pop_front() {
                Some(event) => event,
                None => {
                    let began = Instant::now();
                    let earned = Duration::from_secs(self.heard / SLOWEST);
                    let deadline = (connection.deadline() + earned).checked_sub(self.spent);
                    let deadline = deadline.unwrap_or(began);
                    let event = connection.event(deadline).await?;
                    let took = began.elapsed();
                    self.spent += took;
                    if let Event::Chunk(octets) = &event {
                        self.heard += octets.len() as u64;
                    }
                    let wanted = self.tag.map(|tag| (self.uid, tag));
                    // The time that others take is not this one's.
                    let Some(event) = session.ahead.hear(event, wanted) else {
                        continue;
                    };
                    self.waited += took;
                    event
                }
            };
            let folder = session.folders.get(self.folder);
            let session_validity = folder.map(|folder| folder.uid_validity);
            if uid_validity(&event).is_some_and(|other| Some(other) != session_validity) {
                return Err(UpstreamError::temporary(
                    "UIDVALIDITY changed during the session",
                ));
            }
            match event {
                Event::BodyStart(start) => {
                    if let Some(sent) = self.sent.take() {
                        session.ahead.answered(sent.elapsed());
                    }
                    self.start(start, &mut session.ahead)?;
                }
                Event::Chunk(mut octets) => {
                    let at = usize::try_from(self.received).unwrap_or(usize::MAX);
                    let expected = STAND_IN.get(at..).unwrap_or_default();
                    self.stands_in &= octets.iter().zip(expected).all(|(one, other)| one == other);
                    self.received += octets.len() as u64;
                    self.left = self.left.saturating_sub(octets.len() as u64);
                    let skipped = self.skip.min(octets.len() as u64);
                    self.skip -= skipped;
                    let octets = octets.split_off(usize::try_from(skipped).unwrap_or(0));
                    if let Some(held) = &mut self.held {
                        held.push(octets);
                    } else if !octets.is_empty() {
                        return Ok(Some(octets));
                    }
                }
                Event::BodyEnd => self.ended = true,
                Event::Row(row) if row.with_body => {
                    if row.uid != Some(self.uid) {
                        return Err(UpstreamError::protocol("text of another message"));
                    }
                    self.matched = true;
                }
                Event::Done(tag, status) if Some(tag) == self.tag => {
                    if status.kind != Kind::Ok {
                        return Err(match status.is_coded("EXPUNGEISSUED") {
                            true => UpstreamError::Gone,
                            false => status.refusal("FETCH"),
                        });
                    }
                    if !self.matched || !self.ended {
                        return Err(UpstreamError::Gone);
                    }
                    let doubtful = self.stands_in && self.received >= STAND_IN.len() as u64;
                    if doubtful {
                        let connection = session.ready(self.folder).await?;
                        if !is_there(connection, self.uid).await? {
                            return Err(UpstreamError::Gone);
                        }
                    }
                    let (octets, waited) = (self.received, self.waited);
                    session
                        .ahead
                        .fetched(self.plan, self.claimed, octets, waited);
                    self.state = match self.next_part() {
                        Some(next) => State::Between(next),
                        None => State::Complete,
                    };
                    let held = self.held.take().map(Held::octets);
                    if let Some(mut held) = held.filter(|held| !held.is_empty()) {
                        // Courier leaves the last LF off a header that no blank
                        // line follows.
                        if self.plan == Plan::Header && held.ends_with(b"\r") {
                            held = [&held, b"\n".as_slice()].concat().into();
                        }
                        return Ok(Some(held));
                    }
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, start: BodyStart, ahead: &mut Ahead) -> Result<(), UpstreamError> {
        let expected = match self.plan {
            Plan::Header => Section::Header,
            Plan::Whole | Plan::Part { .. } => Section::Whole,
        };
        let other_message = start.uid.is_some_and(|uid| uid != self.uid);
        if other_message || start.section != expected || self.announced.is_some() {
            return Err(UpstreamError::protocol("text that was not asked for"));
        }
        match (self.plan, start.origin) {
            (Plan::Whole | Plan::Header, None) => {}
            (Plan::Part { first, octets }, Some(origin))
                if origin == first && start.octets <= octets => {}
            // Some servers know no partial fetch and send all of it (Tencent).
            (Plan::Part { first, .. }, None) => {
                self.skip = first;
                self.plan = Plan::Whole;
                ahead.stop();
            }
            _ => return Err(UpstreamError::protocol("another part than was asked for")),
        }
        // An estimate may be wrong, but not so: some servers send nothing for a
        // message they have lost.
        let from_start = matches!(self.plan, Plan::Whole | Plan::Part { first: 0, .. });
        if from_start && start.octets == 0 && self.listed > 0 {
            return Err(UpstreamError::protocol(
                "an empty message that was listed with text",
            ));
        }
        self.announced = Some(start.octets);
        self.left = start.octets;
        let may_be_held = self.portion != Portion::Whole || ahead.is_involved();
        self.held = (may_be_held && start.octets <= HELD).then(Held::default);
        Ok(())
    }

    /// The part behind the one that is complete, unless that was the last.
    fn next_part(&self) -> Option<Plan> {
        let Plan::Part { first, octets } = self.plan else {
            return None;
        };
        if self.announced.unwrap_or(0) < octets {
            return None;
        }
        Some(part(
            first + octets,
            (octets * 2).min(LARGEST_PART),
            self.listed,
        ))
    }
}

/// Whether the message is still in the mailbox, of which the server is first
/// given leave to say what has changed (RFC 3501 §6.1.2).
async fn is_there(connection: &mut Connection, uid: u32) -> Result<bool, UpstreamError> {
    let noop = connection.run(Command::new("NOOP"), |_| Ok(())).await?;
    noop.ok_or_error("NOOP")?;
    let mut there = false;
    let look = Command::new("UID FETCH")
        .set(&UidSet::one(uid))
        .word("(UID)");
    let hear = |event| {
        there |= matches!(event, Event::Row(row) if row.uid == Some(uid));
        Ok(())
    };
    let looked = connection.run(look, hear).await?;
    Ok(there || looked.kind != Kind::Ok)
}

/// A part that begins in front of the listed end wherever it can: one server
/// crashes when asked for what lies behind (hMailServer).
fn part(first: u64, octets: u64, listed: u64) -> Plan {
    let reaches_end = first.saturating_add(octets) >= listed;
    let octets = match reaches_end {
        true => listed.saturating_sub(first).saturating_add(SLACK),
        false => octets,
    };
    Plan::Part { first, octets }
}

/// The message as the server above sees it.
pub(super) struct ImapBody<'a> {
    session: &'a mut ImapSession,
    retrieval: Retrieval,
}

impl<'a> ImapBody<'a> {
    pub fn new(session: &'a mut ImapSession, retrieval: Retrieval) -> Self {
        Self { session, retrieval }
    }
}

#[async_trait]
impl Body for ImapBody<'_> {
    fn announced(&self) -> Option<u64> {
        match self.retrieval.plan {
            Plan::Whole if self.retrieval.skip == 0 => self.retrieval.announced,
            _ => None,
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if let Some(first) = self.retrieval.first.take() {
            return Ok(Some(first));
        }
        self.retrieval.advance(self.session).await
    }

    async fn abandon(&mut self) {
        let retrieval = &mut self.retrieval;
        retrieval.first = None;
        if retrieval.left > CHEAP {
            return;
        }
        // No further part is asked for.
        if retrieval.state != State::Running {
            retrieval.state = State::Complete;
            return;
        }
        retrieval.plan = Plan::Whole;
        while let Ok(Some(_)) = retrieval.advance(self.session).await {}
    }
}
