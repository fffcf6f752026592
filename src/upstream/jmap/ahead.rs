//! Messages that are downloaded before the client asks for them, once it reads
//! in order: several at a time, so that it does not wait for each.
//!
//! What is downloaded ahead obeys the rules of any download. What fails, or
//! hangs, is downloaded again when the client asks for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::api::Api;
use super::clients::Lane;
use super::download::{Download, FIRST_PART};
use super::messages::Messages;
use crate::maildrop::{MessageIndex, Portion};
use crate::metrics::{Ahead as Fate, Metrics};
use crate::upstream::{ReadAhead, UpstreamError};

/// Larger messages are not downloaded ahead: what is waited for at each is
/// little beside what it takes.
const LARGEST: u64 = 256 * 1024;
/// Messages ahead at first; each that is asked for doubles it.
const FIRST_WINDOW: usize = 4;
/// Downloads at a time: over a connection each, or as streams of one.
const CONNECTIONS: usize = 16;
const STREAMS: usize = 64;
/// Nothing comes of a download ahead for so long: it is tried the plain way
/// beside it.
const STALLED: Duration = Duration::from_secs(2);

/// What a session downloads ahead.
pub(super) struct Ahead {
    terms: ReadAhead,
    /// KiB that all sessions may hold.
    process: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    course: Option<Course>,
    /// Messages that may be ahead of the client.
    window: usize,
    /// In the order in which the client is expected to ask for them.
    slots: VecDeque<Slot>,
    /// Downloads at a time, once the protocol is known.
    at_once: Option<Arc<Semaphore>>,
    /// The server does not like it.
    off: bool,
}

/// How the client reads.
#[derive(Clone, Copy)]
struct Course {
    /// The last message it asked for, and what of it.
    last: MessageIndex,
    portion: Portion,
    /// Where the next one is expected: behind or before it. None before there
    /// were two in a row.
    step: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Up,
    Down,
}

impl Step {
    fn from(self, message: MessageIndex) -> Option<MessageIndex> {
        match self {
            Self::Up => message.checked_add(1),
            Self::Down => message.checked_sub(1),
        }
    }

    fn between(last: MessageIndex, next: MessageIndex) -> Option<Self> {
        [Self::Up, Self::Down]
            .into_iter()
            .find(|step| step.from(last) == Some(next))
    }
}

/// A message on its way, or here.
pub(super) struct Slot {
    message: MessageIndex,
    task: AbortOnDropHandle<Result<Box<Download>, UpstreamError>>,
    /// Octets so far.
    progress: Arc<AtomicU64>,
    /// Octets that it may hold.
    cost: u64,
    metrics: Arc<Metrics>,
    fate: Fate,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let octets = self.progress.load(Ordering::Relaxed);
        let counter = self.metrics.read_ahead.get_or_create(&self.fate);
        counter.inc_by(octets);
    }
}

/// What became of a download ahead that was waited for.
pub(super) enum Waited {
    Done(Box<Download>),
    Failed(UpstreamError),
    /// Nothing comes, yet.
    Stalled,
}

impl Slot {
    /// Waits for the download, for as long as it gets on.
    pub async fn wait(&mut self) -> Waited {
        loop {
            let before = self.progress.load(Ordering::Relaxed);
            match timeout(STALLED, self.end()).await {
                Ok(Ok(download)) => return Waited::Done(download),
                Ok(Err(error)) => return Waited::Failed(error),
                Err(_) if self.progress.load(Ordering::Relaxed) == before => {
                    return Waited::Stalled;
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for it however long that takes.
    pub async fn end(&mut self) -> Result<Box<Download>, UpstreamError> {
        let ended = match (&mut self.task).await {
            Ok(ended) => ended,
            Err(_) => Err(UpstreamError::temporary("a download ahead was given up")),
        };
        match &ended {
            Ok(_) => self.fate = Fate::Used,
            Err(error) => tracing::debug!(%error, "a download ahead failed"),
        }
        ended
    }
}

impl Ahead {
    /// For one session. `process` is what all of them may hold, in KiB.
    pub fn new(terms: ReadAhead, process: Arc<Semaphore>, metrics: Arc<Metrics>) -> Self {
        Self {
            terms,
            process,
            metrics,
            course: None,
            window: FIRST_WINDOW,
            slots: VecDeque::new(),
            at_once: None,
            off: false,
        }
    }

    /// The client asks for a message. Returns what was begun of it.
    pub fn asked(&mut self, message: MessageIndex, portion: Portion) -> Option<Slot> {
        let before = self.course.filter(|course| course.portion == portion);
        let step = before.and_then(|course| {
            let again = course.step.filter(|_| course.last == message);
            again.or_else(|| Step::between(course.last, message))
        });
        self.course = Some(Course {
            last: message,
            portion,
            step,
        });
        let place = self.slots.iter().position(|slot| slot.message == message);
        let place = place.filter(|_| before.is_some());
        match place {
            Some(place) => {
                // Those before it were left out.
                self.slots.drain(..place);
                self.window = (self.window * 2).min(2 * STREAMS);
                // It goes on as it went, even past a gap.
                if let (Some(course), Some(before)) = (&mut self.course, before) {
                    course.step = before.step;
                }
                self.slots.pop_front()
            }
            None => {
                let is_repeated = before.is_some_and(|course| course.last == message);
                if !is_repeated && self.slots.iter().any(|slot| !self.is_next(slot)) {
                    self.clear();
                }
                None
            }
        }
    }

    /// Whether a message still lies ahead of the client.
    fn is_next(&self, slot: &Slot) -> bool {
        self.course.is_some_and(|course| match course.step {
            Some(Step::Up) => slot.message > course.last,
            Some(Step::Down) => slot.message < course.last,
            None => false,
        })
    }

    /// A download ahead failed: that may be because of how many there are.
    pub fn failed(&mut self) {
        self.off = true;
        self.clear();
    }

    /// Nothing of what is ahead is wanted any more.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.window = FIRST_WINDOW;
    }

    /// Begins to download what the client is expected to ask for next.
    pub fn go_on(&mut self, api: &Arc<Api>, messages: &Messages) {
        let Some(Course {
            last,
            portion,
            step: Some(step),
        }) = self.course
        else {
            return;
        };
        if self.off || self.terms.session == 0 || api.http.is_too_many() {
            return;
        }
        let most = if api.http.is_multiplexed() {
            STREAMS
        } else {
            CONNECTIONS
        };
        let at_once = Arc::clone(
            self.at_once
                .get_or_insert_with(|| Arc::new(Semaphore::new(most))),
        );
        let mut held: u64 = self.slots.iter().map(|slot| slot.cost).sum();
        let mut from = self.slots.back().map_or(last, |slot| slot.message);
        // As many again may wait for those before them.
        while self.slots.len() < self.window.min(2 * most) {
            let Some(message) = step.from(from) else {
                return;
            };
            let Some(email) = messages.get(message) else {
                return;
            };
            from = message;
            let cost = match portion {
                Portion::Whole => email.size,
                Portion::Top { .. } => email.size.min(2 * FIRST_PART),
            };
            if cost > LARGEST {
                continue;
            }
            if held + cost > self.terms.session {
                return;
            }
            let Some(leave) = self.leave(cost) else {
                return;
            };
            held += cost;
            let progress = Arc::<AtomicU64>::default();
            let wanted = Wanted {
                api: Arc::clone(api),
                blob: email.blob_id.into(),
                size: email.size,
                portion,
                leave,
                progress: Arc::clone(&progress),
            };
            let task = tokio::spawn(wanted.download(Arc::clone(&at_once)));
            self.slots.push_back(Slot {
                message,
                task: AbortOnDropHandle::new(task),
                progress,
                cost,
                metrics: Arc::clone(&self.metrics),
                fate: Fate::Wasted,
            });
        }
    }

    /// The leave to hold so many octets, where all sessions together do not
    /// hold too many.
    fn leave(&self, octets: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(octets.div_ceil(1024).max(1)).ok()?;
        Arc::clone(&self.process).try_acquire_many_owned(kib).ok()
    }
}

/// A message to be downloaded ahead.
struct Wanted {
    api: Arc<Api>,
    blob: Box<str>,
    size: u64,
    portion: Portion,
    leave: OwnedSemaphorePermit,
    progress: Arc<AtomicU64>,
}

impl Wanted {
    async fn download(self, at_once: Arc<Semaphore>) -> Result<Box<Download>, UpstreamError> {
        let _turn = at_once.acquire().await;
        let begun =
            Download::begin(&self.api, &self.blob, self.size, self.portion, Lane::Ahead).await;
        if let Err(UpstreamError::Temporary {
            retry_after: Some(_),
            ..
        }) = &begun
        {
            self.api.http.note_too_many();
        }
        let mut download = Box::new(begun?);
        download.read_ahead(self.leave, &self.progress).await?;
        Ok(download)
    }
}
