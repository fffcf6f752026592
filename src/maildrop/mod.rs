//! The vocabulary that POP3 and the upstreams share. Pure: no I/O, no clock.

mod folder;
mod policy;
mod snapshot;
mod unique_id;
mod update;

pub use folder::{FolderName, FolderNameError, SpecialUse};
pub use policy::{DeletePolicy, Policy, SeenPolicy, UnknownPolicy, UnknownSeenPolicy, Window};
pub use snapshot::{Maildrop, MaildropBuilder, MaildropError, Message, MessageIndex};
pub use unique_id::{Ingredient, Ingredients, UniqueId, UniqueIdFormat, UniqueIdFormatError};
pub use update::{Outcome, Portion, Update};
