//! UPDATE state (RFC 1939 §6): QUIT was given in TRANSACTION state.

use super::response::{Response, ResponseCode};
use super::session::{self, Input, Session, Step};
use crate::maildrop::Maildrop;

/// Waits for word of what became of the marked messages.
#[derive(Debug)]
pub struct UpdateState {
    maildrop: Maildrop,
    /// How many are to be removed; `None` where nothing was asked for.
    due: Option<usize>,
}

impl UpdateState {
    pub(super) fn new(maildrop: Maildrop, due: Option<usize>) -> Self {
        Self { maildrop, due }
    }

    pub(super) fn maildrop(&self) -> &Maildrop {
        &self.maildrop
    }

    /// `+OK` only when every marked message is known to be removed.
    pub(super) fn handle(self, input: Input<'_>) -> (Session, Step) {
        let step = match (self.due, input) {
            (Some(due), Input::Updated(outcome)) => {
                let unaccounted = due.saturating_sub(outcome.removed.len());
                Step::Close(match outcome.remaining.len().max(unaccounted) {
                    0 => Response::ok("bye"),
                    left => Response::err(format!("{left} messages not removed"))
                        .with_code(ResponseCode::SysTemp),
                })
            }
            _ => session::internal_error(),
        };
        (Session::Update(self), step)
    }
}
