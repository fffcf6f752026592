//! POP3 (RFC 1939 and its extensions), pure: no I/O, no clock.
//!
//! A client's octets go into a [`LineBuffer`], each line of it into
//! [`Session::handle`], which answers with a [`Step`] for the driver to take.
//! Messages go out through a [`DotStuffer`], for TOP behind a [`TopLimiter`].

mod authorization;
mod capability;
mod command;
mod dot_stuffing;
mod line;
mod lines;
mod response;
mod session;
mod top;
mod transaction;
mod update;

pub use authorization::Authorization;
pub use command::{Command, MessageNumber, Redacted, SyntaxError};
pub use dot_stuffing::{DotStuffer, NulPolicy, octets_of};
pub use line::{Expects, Framed, LineBuffer};
pub use lines::Lines;
pub use response::{Refusal, Response, ResponseCode};
pub use session::{Announced, Front, Input, Session, Step, Terms};
pub use top::TopLimiter;
pub use transaction::Transaction;
pub use update::UpdateState;
