//! Reading ahead: while a client reads one message after the other, the next
//! ones are asked for before it does, each by a command of its own. The answers
//! stay in the socket until it is their turn, so that they take no memory here.
//!
//! [`Ahead`] knows what was asked for, and decides what else; `ImapSession`
//! sends it, and settles it before anything else is said on the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Event, Tag, uid_validity};
use super::retrieval::Plan;
use super::session::ImapSession;
use super::shared::Shared;
use crate::maildrop::{MessageIndex, Portion, SeenPolicy};
use crate::metrics::{self, Metrics};
use crate::upstream::{ReadAhead, UpstreamError};

pub(super) mod window;

use window::Window;

/// What is due and not wanted is read to its end if it is no more than this;
/// more costs more than a new connection.
pub(super) const CHEAP: u64 = 256 * 1024;
/// A message of more octets than this is alone ahead of the client.
const LARGE: u64 = 1024 * 1024;
/// What a header is taken to have before any was seen.
const HEADER: u64 = 2048;
/// Whatever a message has, its answer has some more.
const FRAME: u64 = 128;
/// Messages that were read ahead in vain, or failures, behind which a session
/// goes on without.
const MISSES: u32 = 2;
/// So many that were wanted make up for one that was not.
const HITS: u32 = 16;
/// How long answers that nobody wants are read.
const PATIENCE: Duration = Duration::from_secs(10);

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
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    message: MessageIndex,
    folder: usize,
    uid: u32,
    plan: Plan,
    tag: Tag,
    /// Expected, answer and all.
    octets: u64,
}

impl Ahead {
    /// Nothing yet. Whole messages are not read ahead where each is marked as read
    /// when it was delivered: that would have to wait for those ahead.
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

    fn miss(&mut self) {
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
        let Some(last) = self.queue.back() else {
            // A message larger than the window may be alone in it, once it is
            // clear where the client goes.
            let fits = octets <= self.window.octets() || self.course != Some(Course::Begun);
            return fits && octets <= self.limits.session && self.takes(octets);
        };
        self.queue.len() < self.window.messages()
            && self.octets + octets <= self.window.octets()
            && octets <= LARGE
            && last.octets <= LARGE
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
        self.queue = VecDeque::new();
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
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.clear();
    }
}

impl ImapSession {
    /// The command by which this was asked for already; its answer comes next.
    /// None: it is to be asked for when the connection is ready.
    pub(super) async fn claim(&mut self, folder: usize, uid: u32, plan: Plan) -> Option<Tag> {
        if self.ahead.queue.is_empty() {
            return None;
        }
        let place = self.ahead.find(folder, uid, plan);
        if place != Some(0) {
            self.ahead.miss();
        }
        let before = place?;
        if before > 0 {
            let passed = self.ahead.queue.iter().take(before);
            let octets: u64 = passed.map(|asked| asked.octets).sum();
            if octets > self.ahead.cheap() || !self.owes_the_queue() {
                return None;
            }
            self.discard(before).await;
        }
        // Some servers may answer in another order.
        if self.ahead.find(folder, uid, plan) != Some(0) || !self.owes_the_queue() {
            return None;
        }
        Some(self.ahead.remove(0)?.tag)
    }

    /// Asks for messages behind this one, if the client is likely to.
    pub(super) async fn read_on(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<(), UpstreamError> {
        let marks = self.policy.seen == SeenPolicy::OnRetr && portion == Portion::Whole;
        let listed = self.messages.octets.get(message).copied().unwrap_or(0);
        let fills = portion == Portion::Whole && listed > self.ahead.limits.session;
        if marks || fills || self.ahead.is_stopped() || self.ahead.is_ample() {
            return Ok(());
        }
        let last = self.ahead.queue.back().map_or(message, |it| it.message);
        let mut at = last;
        while let Some(next) = self.ahead.next(at) {
            at = next;
            let Ok((folder, uid)) = self.place(next) else {
                break;
            };
            if self.selected != Some(folder) {
                break;
            }
            let listed = self.messages.octets.get(next).copied().unwrap_or(0);
            // It will be refused.
            if portion == Portion::Whole && listed > self.config.limits.literal {
                continue;
            }
            let plan = Plan::of(listed, portion);
            let octets = self.ahead.expected(plan, listed);
            let Some(connection) = self.connection.as_mut() else {
                break;
            };
            if !self.ahead.admits(octets) {
                break;
            }
            let tag = match connection.send(plan.command(uid)).await {
                Ok(tag) => tag,
                Err(error) => {
                    self.shared.ahead.give_back(octets);
                    return Err(error);
                }
            };
            self.ahead.push(Asked {
                message: next,
                folder,
                uid,
                plan,
                tag,
                octets,
            });
        }
        Ok(())
    }

    /// Nothing is due any more that was asked for ahead: it is read and thrown
    /// away, or the connection is given up where that costs less. Whatever else is
    /// to be said on the connection waits for this.
    pub(super) async fn settle_ahead(&mut self) {
        self.settle_ahead_within(self.ahead.cheap()).await;
    }

    /// The same, where up to so many octets are read.
    pub(super) async fn settle_ahead_within(&mut self, octets: u64) {
        let due = self.ahead.queue.len();
        if due == 0 {
            return;
        }
        if self.ahead.octets > octets || !self.owes_the_queue() {
            self.give_up();
        } else {
            self.discard(due).await;
        }
    }

    fn give_up(&mut self) {
        self.connection = None;
        self.selected = None;
        self.ahead.clear();
    }

    /// Nothing but the answers to the queue is due.
    fn owes_the_queue(&self) -> bool {
        let due = self.connection.as_ref().and_then(|it| it.due());
        due == Some(self.ahead.queue.len())
    }

    /// Reads so many answers that nobody wants. Where that fails, the connection
    /// is given up.
    async fn discard(&mut self, count: usize) {
        let Some(connection) = self.connection.as_mut() else {
            return;
        };
        let deadline = Instant::now() + PATIENCE;
        let most = self.ahead.octets.saturating_mul(2) + CHEAP;
        let mut octets = 0;
        let mut left = count;
        let mut is_well = true;
        while left > 0 && is_well {
            is_well = match connection.event(deadline).await {
                Ok(Event::Chunk(chunk)) => {
                    octets += chunk.len() as u64;
                    octets <= most
                }
                Ok(Event::Done(tag, _)) => {
                    left -= 1;
                    let place = self.ahead.queue.iter().position(|it| it.tag == tag);
                    place.and_then(|at| self.ahead.remove(at)).is_some()
                }
                Ok(Event::Continue) | Err(_) => false,
                // Opened anew, it will be found to be another mailbox.
                Ok(event) => uid_validity(&event).is_none(),
            };
        }
        self.ahead.waste(octets);
        if !is_well {
            self.give_up();
        }
    }
}
