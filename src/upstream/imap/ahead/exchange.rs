//! What is said on the connection to read ahead, and to be done with it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::{Asked, Claimed};
use crate::maildrop::{MessageIndex, Portion, SeenPolicy};
use crate::upstream::UpstreamError;
use crate::upstream::imap::connection::{Event, uid_validity};
use crate::upstream::imap::retrieval::Plan;
use crate::upstream::imap::session::ImapSession;

/// How long answers that nobody wants are read.
const PATIENCE: Duration = Duration::from_secs(10);

impl ImapSession {
    /// What was asked for already; `None`: nothing was, or not so that it can be
    /// waited for.
    pub(in super::super) async fn claim(
        &mut self,
        folder: usize,
        uid: u32,
        plan: Plan,
    ) -> Option<Claimed> {
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
        if self.ahead.find(folder, uid, plan) != Some(0) || !self.owes_the_queue() {
            return None;
        }
        let Asked { tag, early, .. } = self.ahead.remove(0)?;
        Some(Claimed { tag, early })
    }

    /// Asks for messages behind this one, if the client is likely to.
    pub(in super::super) async fn read_on(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<(), UpstreamError> {
        // Marking a message would have to wait for those behind it.
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
                early: VecDeque::new(),
                text: BytesMut::new(),
                has_text: false,
                is_done: false,
                is_spoilt: false,
            });
        }
        Ok(())
    }

    /// Nothing is due any more that was asked for ahead: it is read and thrown
    /// away, or the connection is given up where that costs less. Whatever else is
    /// to be said on the connection waits for this.
    pub(in super::super) async fn settle_ahead(&mut self) {
        self.settle_ahead_within(self.ahead.cheap()).await;
    }

    /// The same, where up to so many octets are read.
    pub(in super::super) async fn settle_ahead_within(&mut self, octets: u64) {
        let count = self.ahead.queue.len();
        if count == 0 {
            return;
        }
        if self.ahead.octets > octets || !self.owes_the_queue() {
            self.give_up();
        } else {
            self.discard(count).await;
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
        due == Some(self.ahead.due())
    }

    /// Reads the first answers of the queue, which nobody wants. Where that fails,
    /// the connection is given up.
    async fn discard(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        self.ahead.spoil(count);
        for _ in 0..count {
            while self.ahead.queue.front().is_some_and(|asked| !asked.is_done) {
                let Some(connection) = self.connection.as_mut() else {
                    return self.give_up();
                };
                let Ok(event) = connection.event(deadline).await else {
                    return self.give_up();
                };
                // Opened anew, it will be found to be another mailbox.
                let is_other = uid_validity(&event).is_some();
                let is_misplaced = matches!(
                    self.ahead.hear(event, None),
                    Some(
                        Event::BodyStart(_)
                            | Event::Chunk(_)
                            | Event::BodyEnd
                            | Event::Continue
                            | Event::Done(..)
                    )
                );
                if is_other || is_misplaced {
                    return self.give_up();
                }
            }
            self.ahead.remove(0);
        }
    }
}
