//! A connection between commands: IDLE (RFC 2177), and what a server says of the
//! mailbox when it was not asked.

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::command::Command;
use super::connection::{Connection, Event, Tag};
use super::fetch::{HIDDEN, Row};
use super::status::{Code, Kind, Status};
use crate::upstream::UpstreamError;

/// Where IDLE stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idling {
    No,
    /// Sent; the server has not yet said `+`, and DONE may not be sent.
    Begun(Tag, Instant),
    /// The server tells of what changes, since then.
    Confirmed(Tag, Instant),
    /// DONE was sent; what comes before this answer is still about the past.
    Ending(Tag, Instant),
}

impl Idling {
    /// Whether it lasts.
    pub fn is_on(self) -> bool {
        matches!(self, Self::Begun(..) | Self::Confirmed(..))
    }

    /// Whether it ends with the answer to this.
    fn ends_with(self, tag: Tag) -> bool {
        match self {
            Self::No => false,
            Self::Begun(own, _) | Self::Confirmed(own, _) | Self::Ending(own, _) => own == tag,
        }
    }

    /// Whether this tag is of IDLE, or of what belongs to it: nobody waits for its
    /// answer.
    pub fn covers(self, tag: Tag) -> bool {
        match self {
            Self::No => false,
            Self::Begun(own, _) | Self::Confirmed(own, _) | Self::Ending(own, _) => tag <= own,
        }
    }
}

/// Whether the mailbox is still what its listing showed.
#[derive(Debug)]
pub(super) struct Watch {
    /// A command that opens a mailbox, not yet answered: with its answer all
    /// begins anew.
    selecting: Option<Tag>,
    exists: Option<u32>,
    /// Messages carry marks that keep them from being shown. Without any, only a
    /// mark that is set makes a difference, none that is taken away.
    has_marks: bool,
    has_news: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            selecting: None,
            exists: None,
            has_marks: true,
            has_news: true,
        }
    }
}

impl Watch {
    /// A command is sent.
    pub fn sent(&mut self, command: &Command, tag: Tag) {
        if command.selects() {
            self.selecting = Some(tag);
        }
    }

    /// A command has ended.
    pub fn answered(&mut self, tag: Tag) {
        if self.selecting == Some(tag) {
            self.selecting = None;
            self.has_marks = true;
            self.has_news = false;
        }
    }

    /// Something was said. What a server answers to a listing is none of the
    /// news; of all else what is in doubt is.
    pub fn note(&mut self, event: &Event) {
        self.has_news |= match event {
            Event::Exists(exists) => self.exists.replace(*exists) != Some(*exists),
            Event::Expunge(_) => {
                self.exists = self.exists.and_then(|exists| exists.checked_sub(1));
                true
            }
            Event::Hides | Event::Vanished(_) => true,
            Event::Row(row) => self.marks(row),
            Event::Untagged(status) => is_of_weight(status),
            _ => false,
        };
    }

    fn marks(&self, row: &Row) -> bool {
        let told = row.flags.filter(|_| row.octets.is_none());
        told.is_some_and(|flags| flags.deleted || flags.hidden || self.has_marks)
    }
}

/// Whether an untagged status may say more than "still here".
fn is_of_weight(status: &Status) -> bool {
    let is_weighty = match &status.code {
        None => false,
        Some(Code::Named(name)) => name != "ALERT",
        Some(Code::PermanentFlags(flags)) => {
            flags.iter().any(|flag| flag.eq_ignore_ascii_case(HIDDEN))
        }
        Some(_) => true,
    };
    is_weighty || status.kind != Kind::Ok
}

impl Connection {
    /// Begins IDLE, as soon as something is heard or overheard.
    pub fn begin_idle(&mut self) {
        if self.idling == Idling::No {
            let tag = self.queue(b"IDLE\r\n");
            self.idling = Idling::Begun(tag, Instant::now());
        }
    }

    /// Where IDLE stands.
    pub fn idling(&self) -> Idling {
        self.idling
    }

    /// Ends IDLE, by what goes out together with the next command.
    pub(super) async fn end_idle(&mut self, deadline: Instant) -> Result<(), UpstreamError> {
        while let Idling::Begun(..) = self.idling {
            let event = self.next_event(deadline).await?;
            self.idled(&event)?;
        }
        // The server may have ended it by itself. Then DONE would be no command.
        while let Some(event) = self.overhear().now_or_never() {
            event?;
            if Instant::now() >= deadline {
                break;
            }
        }
        if let Idling::Confirmed(tag, _) = self.idling {
            self.queue_octets(b"DONE\r\n");
            self.idling = Idling::Ending(tag, Instant::now());
        }
        Ok(())
    }

    /// Has the server tell all that it knows (RFC 3501 §6.1.2) and ends IDLE, as
    /// soon as something is overheard.
    pub fn renew_idle(&mut self) {
        if let Idling::Confirmed(..) = self.idling {
            self.queue_octets(b"DONE\r\n");
            let tag = self.queue(b"NOOP\r\n");
            self.idling = Idling::Ending(tag, Instant::now());
        }
    }

    /// What the server says while no answer is due, however long it takes.
    /// Cancel-safe.
    pub async fn overhear(&mut self) -> Result<Event, UpstreamError> {
        let event = self.next_unasked().await?;
        self.idled(&event)?;
        Ok(event)
    }

    /// Takes note of what an event means for IDLE.
    pub(super) fn idled(&mut self, event: &Event) -> Result<(), UpstreamError> {
        self.idling = match (event, self.idling) {
            (Event::Continue, Idling::Begun(tag, _)) => Idling::Confirmed(tag, Instant::now()),
            (Event::Continue, _) => return Err(self.unwanted_continuation()),
            (Event::Done(tag, _), idling) if idling.ends_with(*tag) => Idling::No,
            (_, idling) => idling,
        };
        Ok(())
    }

    /// Whether the mailbox may by now be another than was listed when it was
    /// opened.
    pub fn has_news(&self) -> bool {
        self.watch.has_news
    }

    /// The mailbox that is open was listed: so many messages. Whether any of them
    /// carries a mark that keeps it from being shown.
    pub fn listed(&mut self, count: usize, has_marks: bool) {
        let exists = self.watch.exists.and_then(|it| usize::try_from(it).ok());
        self.watch.has_news |= exists != Some(count);
        self.watch.has_marks = has_marks;
    }
}
