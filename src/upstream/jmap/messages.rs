//! The messages of a session: the listings of its folders, made into a maildrop.

use std::collections::HashMap;

use super::Sizes;
use super::date;
use super::emails::{Email, Emails, Places};
use super::mailboxes::Source;
use super::unique_ids::{Copies, unique_id};
use crate::maildrop::{Ingredients, Maildrop, MessageIndex, Policy, UniqueIdFormat};
use crate::store::{Kept, MessageKey};
use crate::upstream::UpstreamError;
use crate::upstream::assembly::{Assembly, Candidate};

/// All Emails of the folders, shown or not, and which of them are the messages
/// of the maildrop.
#[derive(Debug, Default)]
pub(super) struct Messages {
    listed: Listed,
    /// By message index: the place in the listing. None: as listed.
    rows: Option<Vec<u32>>,
}

/// The Emails of several folders, one folder after the other. One that lies in
/// two of them is listed from the first, once.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub emails: Emails,
    /// Which copy of its blob an Email is in its folder, by its place, where it
    /// is not the first.
    copies: HashMap<u32, u32>,
    /// Further folders that Emails lie in, and which copies they are there.
    further: HashMap<u32, Vec<(u8, u32)>>,
}

/// What decides of which Emails a maildrop is made.
pub(super) struct Making<'a> {
    pub policy: &'a Policy,
    pub sources: &'a [Source],
    /// By source.
    pub kept: &'a [Kept],
    /// True sizes that are known from before, by blobId.
    pub sizes: &'a Sizes,
    /// Seconds since 1970.
    pub now: i64,
}

impl Listed {
    /// Takes the listings of the folders, in their order.
    pub fn new(folders: Vec<Emails>) -> Result<Self, UpstreamError> {
        let mut listed = Self::default();
        let is_joined = folders.len() > 1;
        let mut places = Places::default();
        for (folder, emails) in (0..).zip(folders) {
            if is_joined {
                listed.join(folder, &emails, &mut places)?;
                continue;
            }
            let mut copies = Copies::default();
            for (place, email) in (0..).zip(emails.iter()) {
                listed.note_copy(place, copies.next(email.blob_id));
            }
            drop(copies);
            listed.emails = emails;
        }
        Ok(listed)
    }

    fn join(
        &mut self,
        folder: u8,
        emails: &Emails,
        places: &mut Places,
    ) -> Result<(), UpstreamError> {
        let mut copies = Copies::default();
        for email in emails.iter() {
            let copy = copies.next(email.blob_id);
            if let Some(place) = places.of(email.id, &self.emails) {
                let further = self.further.entry(short(place)).or_default();
                further.push((folder, copy));
                continue;
            }
            let place = self.emails.len();
            if !self.emails.append(email, folder) {
                return Err(UpstreamError::protocol("Emails without end"));
            }
            places.add(email.id, place);
            self.note_copy(short(place), copy);
        }
        Ok(())
    }

    fn note_copy(&mut self, place: u32, copy: u32) {
        if copy > 1 {
            self.copies.insert(place, copy);
        }
    }

    fn copy(&self, place: u32) -> u32 {
        self.copies.get(&place).copied().unwrap_or(1)
    }
}

/// Places are few enough: the text of the Emails is bounded by as many octets.
fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl Messages {
    /// The maildrop that the policy makes of a listing.
    pub fn assemble(
        listed: Listed,
        making: &Making<'_>,
    ) -> Result<(Self, Maildrop), UpstreamError> {
        let Making { policy, now, .. } = *making;
        let format = UniqueIdFormat::jmap();
        let count = listed.emails.len();
        let mut assembly = Assembly::new(policy, format, now, count);
        let needs_arrival = policy.needs_arrival();
        let mut folder = None;
        for (row, email) in (0..).zip(listed.emails.iter()) {
            if folder != Some(email.folder) {
                folder = Some(email.folder);
                let at = usize::from(email.folder);
                let (Some(source), Some(kept)) = (making.sources.get(at), making.kept.get(at))
                else {
                    return Err(UpstreamError::protocol("a message of no folder"));
                };
                assembly.folder(&source.name, kept);
            }
            let received = if needs_arrival {
                let malformed = || UpstreamError::protocol("receivedAt is no date");
                Some(date::seconds(email.received_at).ok_or_else(malformed)?)
            } else {
                None
            };
            let unique_id = unique_id(email.blob_id, listed.copy(row));
            let octets = making.sizes.get(email.blob_id).copied();
            assembly.message(&Candidate {
                row,
                octets: octets.unwrap_or(email.size),
                is_hidden: email.is_hidden,
                received,
                key: unique_id.as_bytes(),
                known: Ingredients {
                    email_id: Some(email.id),
                    blob_id: Some(&unique_id),
                    ..Ingredients::default()
                },
            })?;
        }
        let assembled = assembly.finish()?;
        let rows = assembled.rows;
        let as_listed = rows.len() == count && rows.iter().copied().eq(0..short(count));
        let messages = Self {
            listed,
            rows: (!as_listed).then_some(rows),
        };
        Ok((messages, assembled.maildrop))
    }

    /// All Emails that were listed, shown or not.
    pub fn emails(&self) -> &Emails {
        &self.listed.emails
    }

    fn place(&self, message: MessageIndex) -> Option<u32> {
        match &self.rows {
            Some(rows) => rows.get(message).copied(),
            None => u32::try_from(message).ok(),
        }
    }

    /// The Email that is this message.
    pub fn get(&self, message: MessageIndex) -> Option<Email<'_>> {
        self.listed.emails.get(self.place(message)? as usize)
    }

    /// The number of messages.
    pub fn len(&self) -> usize {
        self.rows
            .as_ref()
            .map_or(self.listed.emails.len(), Vec::len)
    }

    /// The folders that a message was listed from, the one that it is shown
    /// from first, and what the store knows it by in each.
    pub fn kept_as(&self, message: MessageIndex) -> Vec<(u8, MessageKey)> {
        let found = self.place(message).zip(self.get(message));
        let Some((place, email)) = found else {
            return Vec::new();
        };
        let key = |copy| MessageKey::from(unique_id(email.blob_id, copy).into_bytes());
        let first = (email.folder, key(self.listed.copy(place)));
        let further = self.listed.further.get(&place).into_iter().flatten();
        std::iter::once(first)
            .chain(further.map(|(folder, copy)| (*folder, key(*copy))))
            .collect()
    }
}
