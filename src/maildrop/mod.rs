//! The vocabulary that POP3 and the upstreams share. Pure: no I/O, no clock.

mod snapshot;
mod unique_id;
mod update;

pub use snapshot::{Maildrop, MaildropBuilder, MaildropError, Message, MessageIndex};
pub use unique_id::{UniqueId, UniqueIdFormat, UniqueIdFormatError};
pub use update::{DeletePolicy, Outcome, Portion, Update};
