//! The maildrop as a session sees it: numbered once, at login, and immutable.

use std::hash::{BuildHasher as _, RandomState};

use super::{Ingredient, Ingredients, UniqueId, UniqueIdFormat};

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
        self.append(octets, unique_id.as_str())
    }

    /// Appends the next message, whose unique id is made by `format` of what is
    /// known of it. Returns what had to be known and is not.
    pub fn push_made(
        &mut self,
        octets: u64,
        format: &UniqueIdFormat,
        known: &Ingredients<'_>,
    ) -> Result<Result<(), Ingredient>, MaildropError> {
        if let Err(unknown) = format.append(known, &mut self.maildrop.ids) {
            return Ok(Err(unknown));
        }
        self.end(octets).map(Ok)
    }

    fn append(&mut self, octets: u64, unique_id: &str) -> Result<(), MaildropError> {
        self.maildrop.ids.push_str(unique_id);
        self.end(octets)
    }

    /// The unique id of the next message stands at the end of all.
    fn end(&mut self, octets: u64) -> Result<(), MaildropError> {
        let maildrop = &mut self.maildrop;
        let end = u32::try_from(maildrop.ids.len()).map_err(|_| MaildropError::TooLarge)?;
        maildrop.octets.push(octets);
        maildrop.ends.push(end);
        Ok(())
    }

    /// The messages so far.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.maildrop.iter()
    }

    /// The messages at these places, in this order.
    pub fn arranged(self, places: &[u32]) -> Result<Self, MaildropError> {
        let mut arranged = Self::with_capacity(places.len());
        for place in places {
            if let Some(message) = self.maildrop.get(*place as usize) {
                arranged.append(message.octets, message.unique_id)?;
            }
        }
        Ok(arranged)
    }

    /// Whether two messages have the same unique id.
    pub fn has_duplicates(&self) -> Result<bool, MaildropError> {
        // Ids of IMAP mostly are in order already.
        let ids = self.maildrop.iter().map(|message| message.unique_id);
        if ids.is_sorted_by(|one, next| one < next) {
            return Ok(false);
        }
        // Sorted, equal ones are neighbours: of numbers that stand for them first,
        // which are quicker to sort than text and take less memory than a table.
        let hasher = RandomState::new();
        let ids = self.maildrop.iter();
        let mut hashes: Vec<u64> = ids.map(|it| hasher.hash_one(it.unique_id)).collect();
        hashes.sort_unstable();
        if hashes.is_sorted_by(|one, next| one < next) {
            return Ok(false);
        }
        drop(hashes);
        let unique_id = |index: &u32| {
            let message = self.maildrop.get(*index as usize);
            message.map(|message| message.unique_id)
        };
        let count = u32::try_from(self.maildrop.len()).map_err(|_| MaildropError::TooLarge)?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by(|one, other| unique_id(one).cmp(&unique_id(other)));
        Ok(order
            .windows(2)
            .any(|pair| unique_id(&pair[0]) == unique_id(&pair[1])))
    }

    /// The finished maildrop. No two of its messages share a unique id.
    pub fn build(self) -> Result<Maildrop, MaildropError> {
        if self.has_duplicates()? {
            return Err(MaildropError::DuplicateUniqueId);
        }
        Ok(self.maildrop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maildrop(ids: &[&str]) -> Result<Maildrop, MaildropError> {
        let mut maildrop = MaildropBuilder::default();
        for id in ids {
            maildrop.push(1, &UniqueId::new((*id).to_owned()).unwrap())?;
        }
        maildrop.build()
    }

    #[test]
    fn no_two_messages_share_a_unique_id() {
        assert_eq!(maildrop(&["b", "a", "c"]).unwrap().len(), 3);
        assert_eq!(maildrop(&[]).unwrap().len(), 0);
        let twice = maildrop(&["b", "a", "c", "a"]);
        assert_eq!(twice.unwrap_err(), MaildropError::DuplicateUniqueId);
    }

    #[test]
    fn ids_lie_end_to_end_and_come_out_one_by_one() {
        let maildrop = maildrop(&["abc", "d", "ef"]).unwrap();
        let ids: Vec<&str> = maildrop.iter().map(|message| message.unique_id).collect();
        assert_eq!(ids, ["abc", "d", "ef"]);
        assert_eq!(maildrop.get(3), None);
    }
}
