//! The maildrop as a session sees it: numbered once, at login, and immutable.

use std::collections::HashSet;

use super::UniqueId;

/// A message's place in its maildrop, from 0. Only the upstream's session and
/// the gate for message numbers make one.
pub type MessageIndex = usize;

/// The numbered snapshot of a mailbox, complete when it exists (RFC 1939 §4).
///
/// Unique ids lie end to end in one string, so that a maildrop of 100,000
/// messages takes about 3 MB.
#[derive(Debug, Default)]
pub struct Maildrop {
    octets: Vec<u64>,
    ids: String,
    ends: Vec<u32>,
}

/// One message of a maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its place in the maildrop, from 0.
    pub index: MessageIndex,
    /// Octets with CRLF line ends, before dot-stuffing, as far as known.
    pub octets: u64,
    /// Its unique id (RFC 1939 §7, UIDL).
    pub unique_id: &'a str,
}

/// The upstream listed something that cannot become a maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaildropError {
    /// Two messages would share a unique id.
    #[error("two messages have the same unique id")]
    DuplicateUniqueId,
    /// The unique ids take more than 4 GiB.
    #[error("too many messages")]
    TooLarge,
}

impl Maildrop {
    /// The number of messages.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether there is no message at all.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The message at `index`, if there is one.
    pub fn get(&self, index: MessageIndex) -> Option<Message<'_>> {
        let octets = *self.octets.get(index)?;
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        let unique_id = self.ids.get(start..end)?;
        Some(Message {
            index,
            octets,
            unique_id,
        })
    }

    /// All messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Corrects the size of a message once its true size is known: an upstream
    /// may only have estimated it.
    pub fn learn_octets(&mut self, index: MessageIndex, octets: u64) {
        if let Some(known) = self.octets.get_mut(index) {
            *known = octets;
        }
    }
}

/// Collects a listing into a [`Maildrop`].
#[derive(Debug, Default)]
pub struct MaildropBuilder {
    maildrop: Maildrop,
}

impl MaildropBuilder {
    /// A builder with room for `messages` messages.
    pub fn with_capacity(messages: usize) -> Self {
        Self {
            maildrop: Maildrop {
                octets: Vec::with_capacity(messages),
                ids: String::with_capacity(messages.saturating_mul(16)),
                ends: Vec::with_capacity(messages),
            },
        }
    }

    /// Appends the next message.
    pub fn push(&mut self, octets: u64, unique_id: &UniqueId) -> Result<(), MaildropError> {
        let maildrop = &mut self.maildrop;
        maildrop.ids.push_str(unique_id.as_str());
        let end = u32::try_from(maildrop.ids.len()).map_err(|_| MaildropError::TooLarge)?;
        maildrop.octets.push(octets);
        maildrop.ends.push(end);
        Ok(())
    }

    /// The finished maildrop. No two of its messages share a unique id.
    pub fn build(self) -> Result<Maildrop, MaildropError> {
        let distinct: HashSet<&str> = self
            .maildrop
            .iter()
            .map(|message| message.unique_id)
            .collect();
        if distinct.len() != self.maildrop.len() {
            return Err(MaildropError::DuplicateUniqueId);
        }
        Ok(self.maildrop)
    }
}
