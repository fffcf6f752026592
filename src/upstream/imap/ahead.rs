//! Reading ahead: while a client reads one message after the other, the next
//! ones are asked for before it does, each by a command of its own. The answers
//! stay in the socket until it is their turn, so that they take hardly any memory
//! here: only what a server says in front of an answer that is waited for is kept.
//! Dovecot works at four commands at a time, and may say how they ended only
//! behind the text of all four.
//!
//! [`Ahead`] knows what was asked for, and decides what else; `exchange` sends it,
//! and settles it before anything else is said on the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::connection::{Event, Tag};
use super::retrieval::Plan;
use super::shared::Shared;
use crate::maildrop::{MessageIndex, Portion};
use crate::metrics::{self, Metrics};
use crate::upstream::ReadAhead;

mod exchange;
pub(super) mod window;

use window::Window;

/// What is due and not wanted is read to its end if it is no more than this;
/// more costs more than a new connection.
pub(super) const CHEAP: u64 = 256 * 1024;
/// Octets that are kept of answers that came early.
const KEPT: u64 = 1024 * 1024;
/// Answers that may come early: Dovecot's. From a server with more, what there is
/// no room for is asked for again.
const EARLY: usize = 3;
/// What a header is taken to have before any was seen.
const HEADER: u64 = 2048;
/// Whatever a message has, its answer has some more.
const FRAME: u64 = 128;
/// Messages that were read ahead in vain, or failures, behind which a session
/// goes on without.
const MISSES: u32 = 2;
/// So many that were wanted make up for one that was not.
const HITS: u32 = 16;

/// What a session has asked for before its client has.
pub(super) struct Ahead {
    limits: ReadAhead,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    /// In the order of the commands, which is that of the answers.
    queue: VecDeque<Asked>,
    /// Octets expected of the queue; they are taken from the budget.
    octets: u64,
    window: Window,
    /// What the client asked for last.
    last: Option<(MessageIndex, Portion)>,
    /// Where it goes from there, if it goes on as before.
    course: Option<Course>,
    /// Octets of a header, on average.
    header: u64,
    misses: u32,
    hits: u32,
    failures: u32,
    /// The message being fetched was asked for ahead, or others behind it are.
    involved: bool,
    /// How many of the queue have ended early.
    done: usize,
    /// Octets kept of answers that came early.
    kept: u64,
    /// Whose text comes now, if it is one of the queue's.
    coming: Option<Tag>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The first message of the session: most clients take the next.
    Begun,
    Up,
    /// Clients that show the newest first.
    Down,
}

/// A message that was asked for.
#[derive(Debug)]
struct Asked {
    message: MessageIndex,
    folder: usize,
    uid: u32,
    plan: Plan,
    tag: Tag,
    /// Expected, answer and all.
    octets: u64,
    /// What came early of the answer.
    early: VecDeque<Event>,
    text: BytesMut,
    has_text: bool,
    is_done: bool,
    /// Nobody wants it, or there was no room for it.
    is_spoilt: bool,
}

/// A message that was asked for, and now is wanted.
pub(super) struct Claimed {
    pub tag: Tag,
    /// What came early of the answer.
    pub early: VecDeque<Event>,
}

impl Ahead {
    /// Nothing yet.
    pub fn new(limits: ReadAhead, shared: Arc<Shared>, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            shared,
            metrics,
            queue: VecDeque::new(),
            octets: 0,
            window: Window::new(limits.session),
            last: None,
            course: None,
            header: HEADER,
            misses: 0,
            hits: 0,
            failures: 0,
            involved: false,
            done: 0,
            kept: 0,
            coming: None,
        }
    }

    /// The client asks for a message.
    pub fn turn_to(&mut self, message: MessageIndex, portion: Portion) {
        self.involved = false;
        let before = self.course;
        self.course = match self.last.replace((message, portion)) {
            None => Some(Course::Begun),
            Some((_, other)) if other != portion => None,
            Some((last, _)) if last.checked_add(1) == Some(message) => Some(Course::Up),
            Some((last, _)) if message.checked_add(1) == Some(last) => Some(Course::Down),
            Some(_) => None,
        };
        let goes_on = matches!(
            (before, self.course),
            (Some(Course::Begun | Course::Up), Some(Course::Up))
                | (Some(Course::Down), Some(Course::Down))
        );
        if !goes_on {
            self.window.restart(portion == (Portion::Top { lines: 0 }));
        }
    }

    /// A message is being fetched, `claimed` from the queue or not.
    pub fn involve(&mut self, claimed: bool) {
        self.involved = claimed || !self.queue.is_empty();
    }

    /// What is being fetched was asked for ahead, or has something behind it.
    pub fn is_involved(&self) -> bool {
        self.involved
    }

    /// A message with `claimed` from the queue was fetched whole.
    pub fn fetched(&mut self, plan: Plan, claimed: bool, octets: u64, waited: Duration) {
        if claimed {
            let used = &metrics::Ahead::Used;
            self.metrics.read_ahead.get_or_create(used).inc_by(octets);
            self.hits += 1;
            if self.hits.is_multiple_of(HITS) {
                self.misses = self.misses.saturating_sub(1);
            }
        }
        if plan == Plan::Header {
            self.header = (self.header * 7 + octets) / 8;
        }
        if self.course.is_some() {
            self.window.used(octets + FRAME, waited, Instant::now());
        }
    }

    /// An answer that nothing was in front of began so long after its command.
    pub fn answered(&mut self, after: Duration) {
        self.window.answered(after);
    }

    /// Reading ahead has not gone well: the message is asked for again alone, and
    /// at the second time nothing is read ahead any more.
    pub fn fail(&mut self) {
        self.failures += 1;
        self.course = None;
        self.involved = false;
    }

    /// The upstream does not answer as it was asked: nothing is read ahead any
    /// more.
    pub fn stop(&mut self) {
        self.failures = MISSES;
    }

    /// What was asked for ahead is not what is wanted next.
    pub fn miss(&mut self) {
        self.misses += 1;
        self.window.restart(false);
    }

    fn is_stopped(&self) -> bool {
        self.limits.session == 0 || self.misses >= MISSES || self.failures >= MISSES
    }

    /// Whether so much is on its way that more can wait: commands go out many at a
    /// time.
    fn is_ample(&self) -> bool {
        self.octets > self.window.octets() / 2 || self.queue.len() > self.window.messages() / 2
    }

    /// The message behind `message`, as the client goes.
    fn next(&self, message: MessageIndex) -> Option<MessageIndex> {
        match self.course? {
            Course::Begun | Course::Up => message.checked_add(1),
            Course::Down => message.checked_sub(1),
        }
    }

    /// Octets that an answer may bring.
    fn expected(&self, plan: Plan, listed: u64) -> u64 {
        FRAME
            + match plan {
                Plan::Whole => listed,
                Plan::Header => self.header,
                Plan::Part { octets, .. } => octets.min(listed),
            }
    }

    /// Takes room for another answer of so many octets, if there is any.
    fn admits(&self, octets: u64) -> bool {
        let early = self.queue.iter().rev().take(EARLY - 1);
        let early: u64 = early.map(|asked| asked.octets).sum();
        // A message larger than the window may be alone in it, once it is clear
        // where the client goes.
        let is_alone = self.queue.is_empty() && self.course != Some(Course::Begun);
        (is_alone || self.octets + octets <= self.window.octets())
            && self.queue.len() < self.window.messages()
            && octets <= self.limits.session
            && octets + early <= KEPT
            && self.takes(octets)
    }

    fn takes(&self, octets: u64) -> bool {
        self.shared.ahead.take(octets, self.limits.process)
    }

    /// `asked` was sent, in the room that was taken for it.
    fn push(&mut self, asked: Asked) {
        self.octets += asked.octets;
        self.queue.push_back(asked);
    }

    fn remove(&mut self, at: usize) -> Option<Asked> {
        let asked = self.queue.remove(at)?;
        self.octets -= asked.octets;
        self.done -= usize::from(asked.is_done);
        self.kept -= kept(&asked);
        self.shared.ahead.give_back(asked.octets);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(asked)
    }

    fn waste(&self, octets: u64) {
        let wasted = &metrics::Ahead::Wasted;
        self.metrics.read_ahead.get_or_create(wasted).inc_by(octets);
    }

    /// None of it will be read.
    fn clear(&mut self) {
        self.waste(self.octets);
        self.shared.ahead.give_back(self.octets);
        self.octets = 0;
        self.done = 0;
        self.kept = 0;
        self.coming = None;
        self.queue = VecDeque::new();
    }

    /// Nobody wants the first `count`.
    fn spoil(&mut self, count: usize) {
        for at in 0..count {
            self.spoil_one(at);
        }
    }

    fn spoil_one(&mut self, at: usize) {
        let Some(asked) = self.queue.get_mut(at) else {
            return;
        };
        asked.is_spoilt = true;
        let octets = kept(asked);
        asked.early = VecDeque::new();
        asked.text = BytesMut::new();
        self.kept -= octets;
        self.waste(octets);
    }

    /// Commands whose answers are due.
    fn due(&self) -> usize {
        self.queue.len() - self.done
    }

    /// Keeps what belongs to an answer of the queue while this message is waited
    /// for, if any is. Returns what does not.
    pub fn hear(&mut self, event: Event, wanted: Option<(u32, Tag)>) -> Option<Event> {
        if self.queue.is_empty() {
            return Some(event);
        }
        let place = match (&event, wanted) {
            // Where it is not said whose text comes, it is the one waited for.
            (Event::BodyStart(start), Some((uid, _)))
                if start.uid.is_none_or(|other| other == uid) =>
            {
                None
            }
            (Event::Done(tag, _), Some((_, wanted))) if *tag == wanted => None,
            (Event::BodyStart(start), _) => self.queue.iter().position(|it| {
                !it.is_done && !it.has_text && start.uid.is_none_or(|uid| uid == it.uid)
            }),
            (Event::Chunk(_) | Event::BodyEnd, _) => self.coming.and_then(|tag| self.place(tag)),
            (Event::Row(row), _) if row.with_body => {
                self.coming.take().and_then(|tag| self.place(tag))
            }
            (Event::Done(tag, _), _) => self.place(*tag),
            _ => None,
        };
        let Some(at) = place else {
            return Some(event);
        };
        self.keep(at, event);
        None
    }

    fn place(&self, tag: Tag) -> Option<usize> {
        self.queue.iter().position(|asked| asked.tag == tag)
    }

    fn keep(&mut self, at: usize, event: Event) {
        let Some(asked) = self.queue.get_mut(at) else {
            return;
        };
        match &event {
            Event::BodyStart(_) => {
                asked.has_text = true;
                self.coming = Some(asked.tag);
            }
            Event::Done(..) => {
                asked.is_done = true;
                self.done += 1;
            }
            _ => {}
        }
        match event {
            Event::Chunk(chunk) => {
                let octets = chunk.len() as u64;
                if !asked.is_spoilt && self.kept + octets <= KEPT {
                    self.kept += octets;
                    asked.text.extend_from_slice(&chunk);
                    return;
                }
                if !asked.is_spoilt {
                    self.failures += 1;
                    self.spoil_one(at);
                }
                self.waste(octets);
            }
            _ if asked.is_spoilt => {}
            Event::BodyEnd => {
                let text = std::mem::take(&mut asked.text).freeze();
                if !text.is_empty() {
                    asked.early.push_back(Event::Chunk(text));
                }
                asked.early.push_back(Event::BodyEnd);
            }
            other => asked.early.push_back(other),
        }
    }

    /// Octets that are read faster than a connection is made: what the client
    /// takes in two round trips.
    fn cheap(&self) -> u64 {
        CHEAP.max(self.window.octets())
    }

    fn find(&self, folder: usize, uid: u32, plan: Plan) -> Option<usize> {
        self.queue
            .iter()
            .position(|it| it.folder == folder && it.uid == uid && it.plan == plan)
            .filter(|at| self.queue.get(*at).is_some_and(|it| !it.is_spoilt))
    }
}

/// Octets kept of a message's text.
fn kept(asked: &Asked) -> u64 {
    let early = asked.early.iter().map(|event| match event {
        Event::Chunk(chunk) => chunk.len(),
        _ => 0,
    });
    (early.sum::<usize>() + asked.text.len()) as u64
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.clear();
    }
}
