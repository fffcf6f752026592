//! One IMAP connection: sends commands, hears responses. A command ends only
//! on its own tag; everything else that can happen is an error, and behind an
//! error that is not a plain NO the connection is not used again.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_imap::imap_proto::{MailboxDatum, Response};
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::command::Command;
use super::config::{Limits, Timeouts};
use super::fetch::{BodyStart, Row};
use super::framing::{Data, WireError, printable};
use super::idle::{Idling, Watch};
use super::status::{Code, Kind, Status};
use super::tap::Tap;
use super::transport::Stream;
use super::untagged::{Listed, Namespaces, Vanished};
use crate::upstream::screening::reveals;
use crate::upstream::{Reason, UpstreamError};

/// A connection whose responses async-imap decodes.
pub(super) struct Connection {
    decoder: async_imap::Client<Tap<Stream>>,
    timeouts: Timeouts,
    last_tag: u32,
    /// Sent and not yet answered.
    outstanding: Vec<Tag>,
    /// Answered before anybody waited for it.
    answered: Vec<(Tag, Status)>,
    /// Said, and not yet heard by anybody.
    unheard: Option<Event>,
    health: Health,
    pub(super) idling: Idling,
    pub(super) watch: Watch,
    /// The longest silence that is borne where it is not known whether the other
    /// side is still there.
    doubt: Option<Duration>,
    /// Whether QRESYNC was enabled (RFC 7162 §3.2.3).
    pub resync: Resync,
    /// What was sent that nobody may read in a log.
    secrets: Vec<Zeroizing<Vec<u8>>>,
    /// Something was sent since an answer was last waited for.
    asks: bool,
    round_trips: Arc<AtomicU32>,
}

/// Whether a connection can carry another command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Usable,
    /// The other side is silent, or makes no sense.
    Broken,
    /// The other side has gone.
    Lost,
}

/// What became of `ENABLE QRESYNC`, which is sent once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resync {
    Unasked,
    /// It was sent, and nothing suggests that it was refused.
    Enabled,
    Refused,
}

/// Names a command that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u32);

/// What the server said, one thing at a time.
#[derive(Debug)]
pub(super) enum Event {
    Row(Row),
    BodyStart(BodyStart),
    Chunk(bytes::Bytes),
    BodyEnd,
    Found(Vec<std::ops::RangeInclusive<u32>>),
    Exists(u32),
    Expunge(u32),
    Vanished(Vanished),
    /// The keyword of hidden messages is in use in the mailbox.
    Hides,
    Capability(Vec<String>),
    List(Listed),
    Namespace(Namespaces),
    MyRights(String),
    /// An untagged OK, NO, BAD or PREAUTH.
    Untagged(Status),
    /// The server waits for a literal or a SASL response.
    Continue,
    /// A command has ended.
    Done(Tag, Status),
}

impl Connection {
    pub fn new(stream: Stream, limits: Limits, timeouts: Timeouts) -> Self {
        Self {
            decoder: async_imap::Client::new(Tap::new(stream, limits)),
            timeouts,
            last_tag: 0,
            outstanding: Vec::new(),
            answered: Vec::new(),
            unheard: None,
            health: Health::Usable,
            idling: Idling::No,
            watch: Watch::default(),
            doubt: None,
            resync: Resync::Unasked,
            secrets: Vec::new(),
            asks: false,
            round_trips: Arc::default(),
        }
    }

    /// From now on round trips are counted there; returns how many there were so
    /// far. One is each time that an answer is waited for after something was
    /// sent, however many commands that was. The greeting, and the handshakes of
    /// TCP and TLS, are not counted.
    pub fn count_in(&mut self, round_trips: Arc<AtomicU32>) -> u32 {
        std::mem::replace(&mut self.round_trips, round_trips).load(Ordering::Relaxed)
    }

    /// Whether the other side has gone, as opposed to silent or incoherent:
    /// then a new connection may do at once what this one cannot.
    pub fn is_lost(&self) -> bool {
        self.health == Health::Lost
    }

    /// Whether nothing went wrong so far and no answer is due: what comes next
    /// belongs to the next command.
    pub fn is_usable(&self) -> bool {
        self.due() == Some(0)
    }

    /// Commands whose answers are due, if nothing went wrong so far.
    pub fn due(&self) -> Option<usize> {
        let is_well =
            self.health == Health::Usable && self.answered.is_empty() && self.unheard.is_none();
        let due = self.outstanding.iter();
        is_well.then(|| due.filter(|tag| !self.idling.covers(**tag)).count())
    }

    /// Whether the other side was silent, or made no sense.
    pub fn is_broken(&self) -> bool {
        self.health == Health::Broken
    }

    /// Whether it is of no more use, for whatever reason.
    pub fn has_failed(&self) -> bool {
        self.health != Health::Usable
    }

    /// It is not known whether the other side is still there: bears no longer
    /// silence than this.
    pub fn doubt(&mut self, patience: Duration) {
        self.doubt = Some(patience);
    }

    /// The other side is there, and makes sense.
    pub fn trust(&mut self) {
        self.doubt = None;
    }

    /// Whether it has rested, and nothing has shown since that the other side is
    /// there.
    pub fn is_doubtful(&self) -> bool {
        self.doubt.is_some()
    }

    /// Nothing of what was sent in confidence is kept any longer.
    pub fn forget_secrets(&mut self) {
        self.secrets = Vec::new();
    }

    /// `secret` is about to be sent. Servers quote what they did not understand:
    /// text that holds it, or a part of it, is withheld from every error.
    pub fn conceal(&mut self, secret: &[u8]) {
        let shown = secret.iter().map(printable).collect();
        self.secrets.push(Zeroizing::new(shown));
    }

    fn screen(&self, mut status: Status) -> Status {
        status.withheld = self
            .secrets
            .iter()
            .any(|secret| reveals(&status.text, secret));
        status
    }

    /// The stream below, for STARTTLS. Fails where octets came behind the
    /// server's leave to begin: they are an injection (RFC 9051 §11.1).
    pub fn into_stream(mut self) -> Result<Stream, UpstreamError> {
        if self.decoder.get_mut().has_leftovers() {
            return Err(UpstreamError::protocol("cleartext behind STARTTLS"));
        }
        Ok(self.decoder.into_inner().into_inner())
    }

    /// When a command that is sent now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeouts.command
    }

    /// Sends a command. Where it holds literals that the server must ask for,
    /// waits for it to do so; refused there, the command has ended already.
    pub async fn send(&mut self, command: Command) -> Result<Tag, UpstreamError> {
        let deadline = self.deadline();
        if self.idling.is_on() {
            self.end_idle(deadline).await?;
        }
        let tag = self.queue(b"");
        self.watch.sent(&command, tag);
        let mut pieces = command.pieces().peekable();
        while let Some(piece) = pieces.next() {
            self.decoder.get_mut().queue(piece);
            if pieces.peek().is_none() {
                self.decoder.get_mut().queue(b"\r\n");
                break;
            }
            self.flush(deadline).await?;
            loop {
                match self.event(deadline).await? {
                    Event::Continue => break,
                    Event::Done(other, status) if other == tag => {
                        self.answered.push((tag, status));
                        return Ok(tag);
                    }
                    Event::Done(other, status) => self.answered.push((other, status)),
                    _ => {}
                }
            }
        }
        Ok(tag)
    }

    /// Queues the tag of a new command, and what the command begins with.
    pub(super) fn queue(&mut self, start: &[u8]) -> Tag {
        self.last_tag = self.last_tag.wrapping_add(1);
        let tag = Tag(self.last_tag);
        self.outstanding.push(tag);
        self.queue_octets(format!("{tag} ").as_bytes());
        self.queue_octets(start);
        tag
    }

    pub(super) fn queue_octets(&mut self, octets: &[u8]) {
        self.decoder.get_mut().queue(octets);
    }

    /// Sends a SASL response (RFC 3501 §6.2.2).
    pub async fn send_line(&mut self, line: &[u8], deadline: Instant) -> Result<(), UpstreamError> {
        self.decoder.get_mut().queue(line);
        self.decoder.get_mut().queue(b"\r\n");
        self.flush(deadline).await
    }

    /// Waits until the command `tag` has ended, and shows `hear` all that the
    /// server says meanwhile.
    pub async fn wait(
        &mut self,
        tag: Tag,
        deadline: Instant,
        hear: impl FnMut(Event) -> Result<(), UpstreamError>,
    ) -> Result<Status, UpstreamError> {
        match self.wait_or_go_on(tag, deadline, hear).await? {
            Some(status) => Ok(status),
            None => Err(self.unwanted_continuation()),
        }
    }

    /// The same; `None`: the server asks for more (RFC 3501 §7.5).
    pub async fn wait_or_go_on(
        &mut self,
        tag: Tag,
        deadline: Instant,
        mut hear: impl FnMut(Event) -> Result<(), UpstreamError>,
    ) -> Result<Option<Status>, UpstreamError> {
        loop {
            if let Some(place) = self.answered.iter().position(|(other, _)| *other == tag) {
                return Ok(Some(self.answered.swap_remove(place).1));
            }
            match self.event(deadline).await? {
                Event::Done(other, status) => self.answered.push((other, status)),
                Event::Continue => return Ok(None),
                other => hear(other)?,
            }
        }
    }

    /// Whether the server says anything at all by then. What it says is heard by
    /// who waits next.
    pub async fn is_answered_by(&mut self, deadline: Instant) -> Result<bool, UpstreamError> {
        if self.unheard.is_none() && self.answered.is_empty() {
            match timeout_at(deadline, self.event(self.deadline())).await {
                Ok(event) => self.unheard = Some(event?),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Sends a command and waits for its end.
    pub async fn run(
        &mut self,
        command: Command,
        hear: impl FnMut(Event) -> Result<(), UpstreamError>,
    ) -> Result<Status, UpstreamError> {
        let deadline = self.deadline();
        let tag = self.send(command).await?;
        self.wait(tag, deadline, hear).await
    }

    /// What the server says next, at the latest by `deadline` and without a
    /// longer silence than is allowed. BYE is an error: nothing follows it.
    pub async fn event(&mut self, deadline: Instant) -> Result<Event, UpstreamError> {
        loop {
            let event = self.next_event(deadline).await?;
            // What is said before the end of IDLE is for whoever idled.
            if !matches!(self.idling, Idling::Ending(..)) {
                return Ok(event);
            }
            self.idled(&event)?;
        }
    }

    pub(super) async fn next_event(&mut self, deadline: Instant) -> Result<Event, UpstreamError> {
        // A flood never lets a timer fire.
        if Instant::now() >= deadline {
            return Err(self.too_late());
        }
        if let Some(unheard) = self.unheard.take() {
            return Ok(unheard);
        }
        self.push_out().await.map_err(|error| self.fail(&error))?;
        if let Some(data) = self.decoder.get_mut().pop() {
            return Ok(self.noted(Event::from(data)));
        }
        if std::mem::take(&mut self.asks) {
            self.round_trips.fetch_add(1, Ordering::Relaxed);
        }
        let patience = deadline.min(Instant::now() + self.silence());
        loop {
            let Ok(heard) = timeout_at(patience, self.hear()).await else {
                return Err(self.too_late());
            };
            if let Some(event) = self.understand(heard)? {
                return Ok(event);
            }
        }
    }

    /// What the server says next, however long it takes. Cancel-safe.
    pub(super) async fn next_unasked(&mut self) -> Result<Event, UpstreamError> {
        self.flush(self.deadline()).await?;
        loop {
            let heard = self.hear().await;
            if let Some(event) = self.understand(heard)? {
                return Ok(event);
            }
        }
    }

    /// The event in what was heard, if it means anything.
    fn understand(&mut self, heard: io::Result<Heard>) -> Result<Option<Event>, UpstreamError> {
        let event = match heard {
            Ok(Heard::Data(data)) => Event::from(data),
            Ok(Heard::Event(Event::Untagged(status))) => {
                let status = self.screen(status);
                if status.kind == Kind::Bye {
                    self.health = Health::Lost;
                    return Err(status.refusal("BYE"));
                }
                Event::Untagged(status)
            }
            Ok(Heard::Event(event)) => event,
            Ok(Heard::Answer(tag, status)) => {
                Event::Done(self.answer_to(&tag)?, self.screen(status))
            }
            Ok(Heard::Nothing) => return Ok(None),
            Ok(Heard::End) => {
                self.health = Health::Lost;
                return Err(UpstreamError::temporary(
                    "the upstream closed the connection",
                ));
            }
            Err(error) => return Err(self.fail(&error)),
        };
        Ok(Some(self.noted(event)))
    }

    /// Takes note of what an event says about the listing of the mailbox.
    fn noted(&mut self, event: Event) -> Event {
        self.watch.note(&event);
        event
    }

    fn silence(&self) -> Duration {
        let silence = self.timeouts.silence;
        self.doubt.map_or(silence, |doubt| doubt.min(silence))
    }

    /// Nobody is waiting with a literal.
    pub(super) fn unwanted_continuation(&mut self) -> UpstreamError {
        self.health = Health::Broken;
        UpstreamError::protocol("a continuation nobody waits for")
    }

    fn too_late(&mut self) -> UpstreamError {
        self.health = Health::Broken;
        UpstreamError::temporary("no answer in time")
    }

    /// The connection failed. The decoder's own errors quote what it read,
    /// which may be mail: they are not passed on.
    fn fail(&mut self, error: &io::Error) -> UpstreamError {
        self.health = Health::Broken;
        if let Some(wire) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<WireError>())
        {
            return UpstreamError::protocol(wire.to_string().as_str());
        }
        match error.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData => {
                UpstreamError::protocol("a response that cannot be read")
            }
            kind => {
                self.health = Health::Lost;
                UpstreamError::temporary(Reason::quoting("connection lost", &kind.to_string()))
            }
        }
    }

    /// Says LOGOUT and waits a moment for the server to close.
    pub async fn logout(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // Of no session: nobody waits for it.
        self.count_in(Arc::default());
        if self.send(Command::new("LOGOUT")).await.is_ok() {
            // Ends by BYE, which is an error here, or by the deadline.
            while self.event(deadline).await.is_ok() {}
        }
    }

    /// Writes what the other side has room for, without waiting.
    async fn push_out(&mut self) -> io::Result<()> {
        let tap = self.decoder.get_mut();
        if !tap.is_writing() {
            return Ok(());
        }
        self.asks = true;
        poll_fn(|cx| match Pin::new(&mut *tap).poll_flush(cx) {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    async fn flush(&mut self, deadline: Instant) -> Result<(), UpstreamError> {
        self.asks |= self.decoder.get_ref().is_writing();
        let deadline = deadline.min(Instant::now() + self.silence());
        match timeout_at(deadline, self.decoder.get_mut().flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fail(&error)),
            Err(_) => {
                self.health = Health::Broken;
                Err(UpstreamError::temporary("the upstream does not read"))
            }
        }
    }

    /// The next data or response. Cancel-safe: what was read stays in the tap
    /// or in the decoder's buffer. Commands go out meanwhile: a server that is not
    /// heard may stop listening.
    async fn hear(&mut self) -> io::Result<Heard> {
        let decoder = &mut self.decoder;
        poll_fn(|cx| {
            if let Some(data) = decoder.get_mut().pop() {
                return Poll::Ready(Ok(Heard::Data(data)));
            }
            if decoder.get_ref().is_writing()
                && let Poll::Ready(Err(error)) = Pin::new(decoder.get_mut()).poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            let response = pin!(decoder.read_response()).poll(cx);
            match response {
                Poll::Ready(Ok(Some(response))) => {
                    decoder.get_mut().decoded();
                    Poll::Ready(Ok(heard(response.parsed())))
                }
                Poll::Ready(Ok(None)) => Poll::Ready(Ok(Heard::End)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => match decoder.get_mut().pop() {
                    Some(data) => Poll::Ready(Ok(Heard::Data(data))),
                    None => Poll::Pending,
                },
            }
        })
        .await
    }

    /// The command that a tagged response ends. A tag that nobody is waiting
    /// for is no answer to anything.
    fn answer_to(&mut self, tag: &str) -> Result<Tag, UpstreamError> {
        let place = self
            .outstanding
            .iter()
            .position(|sent| sent.to_string() == tag);
        match place {
            Some(place) => {
                let tag = self.outstanding.remove(place);
                self.watch.answered(tag);
                Ok(tag)
            }
            None => {
                self.health = Health::Broken;
                Err(UpstreamError::protocol("an answer to no command of ours"))
            }
        }
    }
}

/// What a read brought.
enum Heard {
    Data(Data),
    Event(Event),
    Answer(String, Status),
    /// A response that means nothing here.
    Nothing,
    End,
}

/// What a decoded response says.
fn heard(response: &Response<'_>) -> Heard {
    Heard::Event(match response {
        Response::Done {
            tag,
            status,
            outcome,
        } => {
            return Heard::Answer(tag.0.clone(), Status::new(status, outcome));
        }
        Response::Data { status, outcome } => Event::Untagged(Status::new(status, outcome)),
        Response::Continue(_) => Event::Continue,
        Response::Expunge(seq) => Event::Expunge(*seq),
        Response::MailboxData(MailboxDatum::Exists(exists)) => Event::Exists(*exists),
        _ => return Heard::Nothing,
    })
}

impl From<Data> for Event {
    fn from(data: Data) -> Self {
        match data {
            Data::Row(row) => Self::Row(row),
            Data::BodyStart(start) => Self::BodyStart(start),
            Data::Chunk(octets) => Self::Chunk(octets),
            Data::BodyEnd => Self::BodyEnd,
            Data::Found(found) => Self::Found(found),
            Data::Vanished(vanished) => Self::Vanished(vanished),
            Data::List(listed) => Self::List(listed),
            Data::Namespace(namespaces) => Self::Namespace(namespaces),
            Data::MyRights(rights) => Self::MyRights(rights),
            Data::Hides => Self::Hides,
            Data::Capability(names) => Self::Capability(names),
        }
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// The UIDVALIDITY that an event announces, if it does.
pub(super) fn uid_validity(event: &Event) -> Option<u32> {
    match event {
        Event::Untagged(Status {
            code: Some(Code::UidValidity(uid_validity)),
            ..
        }) => Some(*uid_validity),
        _ => None,
    }
}
