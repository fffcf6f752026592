//! From the listings of folders to a maildrop: what is hidden or lies outside
//! the window is left out, frozen unique ids and their order are kept, and no
//! two messages share one. Pure, and the same for every upstream.

use std::collections::HashSet;

use ring::digest;

use crate::maildrop::{
    Ingredient, Ingredients, Maildrop, MaildropBuilder, MaildropError, Policy, UniqueId,
    UniqueIdFormat,
};
use crate::store::Kept;
use crate::upstream::{UpstreamError, calendar};

/// A maildrop in the making.
pub(super) struct Assembly<'a> {
    policy: &'a Policy,
    format: UniqueIdFormat,
    /// What arrived before is not shown, in seconds since 1970.
    oldest: Option<i64>,
    kept: Option<&'a Kept>,
    /// Every frozen unique id. It is nobody else's even when its message is gone
    /// or not shown: clients remember it, and would not fetch another message
    /// that has it (RFC 1939 §7).
    reserved: HashSet<&'a str>,
    /// What the unique ids of the folder end in.
    suffix: Option<String>,
    messages: MaildropBuilder,
    rows: Vec<u32>,
    /// Messages that are there and not shown, ascending: their unique ids are
    /// not free for others (RFC 1939 §7).
    left_out: Vec<u32>,
    /// Places among the frozen ones; empty while none is.
    ranks: Vec<u32>,
    /// Times of arrival; empty where they do not matter.
    received: Vec<i64>,
}

/// A message that an upstream has listed.
pub(super) struct Candidate<'a> {
    /// Its place in the upstream's listing.
    pub row: u32,
    /// Octets as listed.
    pub octets: u64,
    /// The upstream says that it is not to be shown.
    pub is_hidden: bool,
    /// When it arrived, in seconds since 1970; needed where
    /// [`Policy::needs_arrival`].
    pub received: Option<i64>,
    /// What the store knows it by.
    pub key: &'a [u8],
    /// What its unique id is made of.
    pub known: Ingredients<'a>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Assembled {
    pub maildrop: Maildrop,
    /// By message index: the place in the upstream's listing.
    pub rows: Vec<u32>,
}

/// The rank of what is not frozen: behind all that is.
const NOT_FROZEN: u32 = u32::MAX;

impl<'a> Assembly<'a> {
    /// A maildrop of about `messages` messages at the time `now`, in seconds
    /// since 1970. `format` is what suits the upstream where the policy names
    /// none.
    pub fn new(policy: &'a Policy, format: UniqueIdFormat, now: i64, messages: usize) -> Self {
        Self {
            policy,
            format: policy.unique_ids.clone().unwrap_or(format),
            oldest: policy.window.max_age.map(|age| calendar::before(now, age)),
            kept: None,
            reserved: HashSet::new(),
            suffix: None,
            messages: MaildropBuilder::with_capacity(messages),
            rows: Vec::with_capacity(messages),
            left_out: Vec::new(),
            ranks: Vec::new(),
            received: Vec::new(),
        }
    }

    /// The messages that follow are those of the folder with this name
    /// upstream.
    pub fn folder(&mut self, name: &str, kept: &'a Kept) {
        self.kept = Some(kept);
        let frozen = kept.frozen.values();
        self.reserved.extend(frozen.map(|(_, id)| id.as_str()));
        // The inbox keeps the ids it has alone: who adds a folder downloads
        // nothing again.
        let is_alone = self.policy.folders.len() == 1 || name.eq_ignore_ascii_case("INBOX");
        self.suffix = (!is_alone).then(|| tag(name));
    }

    /// The next message of the folder, in the order of arrival.
    pub fn message(&mut self, message: &Candidate<'_>) -> Result<(), UpstreamError> {
        let is_old = match self.oldest {
            Some(oldest) => received(message)? < oldest,
            None => false,
        };
        let is_hidden = |kept: &Kept| kept.hidden.contains(message.key);
        if is_old || message.is_hidden || self.kept.is_some_and(is_hidden) {
            let none_is_frozen = self.kept.is_none_or(|kept| kept.frozen.is_empty());
            if none_is_frozen && self.format.tells_apart() {
                return Ok(());
            }
            let place = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
            self.left_out.push(place);
        }
        let (mut octets, mut frozen) = (message.octets, None);
        if let Some(kept) = self.kept {
            octets = kept.octets.get(message.key).copied().unwrap_or(octets);
            frozen = kept.frozen.get(message.key);
        }
        match frozen {
            Some((rank, unique_id)) => {
                self.rank(*rank);
                self.messages.push(octets, unique_id).map_err(unreadable)?;
            }
            None => {
                if !self.ranks.is_empty() {
                    self.rank(NOT_FROZEN);
                }
                let known = &message.known;
                match &self.suffix {
                    Some(suffix) => {
                        let made = self.format.unique_id(known).map_err(unknown)?;
                        let unique_id = made.with_suffix(suffix);
                        self.messages.push(octets, &unique_id).map_err(unreadable)?;
                    }
                    None => {
                        let made = self.messages.push_made(octets, &self.format, known);
                        made.map_err(unreadable)?.map_err(unknown)?;
                    }
                }
            }
        }
        self.rows.push(message.row);
        if self.policy.window.max_messages.is_some() && self.policy.folders.len() > 1 {
            self.received.push(received(message)?);
        }
        Ok(())
    }

    /// Notes the rank of the next message.
    fn rank(&mut self, rank: u32) {
        self.ranks.resize(self.rows.len(), NOT_FROZEN);
        self.ranks.push(rank);
    }

    /// The maildrop, and where its messages are upstream.
    pub fn finish(mut self) -> Result<Assembled, UpstreamError> {
        if self.messages.has_duplicates().map_err(unreadable)? || self.takes_reserved() {
            self.tell_apart()?;
        }
        let order = self.order();
        let Self {
            mut messages, rows, ..
        } = self;
        let mut arranged = rows;
        if let Some(order) = order {
            messages = messages.arranged(&order).map_err(unreadable)?;
            arranged = order
                .iter()
                .filter_map(|place| arranged.get(*place as usize).copied())
                .collect();
        }
        Ok(Assembled {
            maildrop: messages.build().map_err(unreadable)?,
            rows: arranged,
        })
    }

    /// The places of the messages that are shown, in their order; `None` where
    /// all are, as they are.
    fn order(&self) -> Option<Vec<u32>> {
        let count = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let is_shown = |place: &u32| self.left_out.binary_search(place).is_err();
        let mut order: Vec<u32> = (0..count).filter(is_shown).collect();
        let mut changed = !self.left_out.is_empty();
        if let Some(most) = self.policy.window.max_messages
            && order.len() > most
        {
            let received = |place: &u32| self.received.get(*place as usize).copied();
            // Stable: of those that arrived together, the later ones stay.
            order.sort_by_key(received);
            order.drain(..order.len() - most);
            order.sort_unstable();
            changed = true;
        }
        if !self.ranks.is_empty() {
            let rank = |place: &u32| self.ranks.get(*place as usize).copied();
            order.sort_by_key(|place| rank(place).unwrap_or(NOT_FROZEN));
            changed = true;
        }
        changed.then_some(order)
    }

    /// Whether a message that is not frozen has a unique id that is.
    fn takes_reserved(&self) -> bool {
        !self.reserved.is_empty()
            && self.messages.iter().enumerate().any(|(place, message)| {
                !is_frozen(&self.ranks, place) && self.reserved.contains(message.unique_id)
            })
    }

    /// Renames messages whose unique id another one has: the first in the order
    /// of arrival keeps it, the others get `-2`, `-3`. Frozen ids stay, unless
    /// two folders have frozen the same one.
    fn tell_apart(&mut self) -> Result<(), UpstreamError> {
        let messages = std::mem::take(&mut self.messages);
        let mut renamed = MaildropBuilder::with_capacity(self.rows.len());
        let mut taken: HashSet<String> = HashSet::new();
        let mut made: HashSet<&str> = HashSet::new();
        let mut keeps: Vec<bool> = Vec::with_capacity(self.rows.len());
        for (place, message) in messages.iter().enumerate() {
            made.insert(message.unique_id);
            let is_frozen = is_frozen(&self.ranks, place);
            keeps.push(is_frozen && taken.insert(message.unique_id.to_owned()));
        }
        for (message, keeps) in messages.iter().zip(keeps) {
            let same = UniqueId::of(message.unique_id.to_owned());
            let mut take = |id: &str| !self.reserved.contains(id) && taken.insert(id.to_owned());
            let unique_id = if keeps || take(same.as_str()) {
                same
            } else {
                let others = (2u32..).map(|copy| same.with_suffix(&format!("-{copy}")));
                let mut free = others.filter(|it| !made.contains(it.as_str()) && take(it.as_str()));
                free.next().unwrap_or(same)
            };
            renamed
                .push(message.octets, &unique_id)
                .map_err(unreadable)?;
        }
        self.messages = renamed;
        Ok(())
    }
}

fn is_frozen(ranks: &[u32], place: usize) -> bool {
    ranks.get(place).is_some_and(|rank| *rank != NOT_FROZEN)
}

/// What tells the messages of a folder from those of another.
fn tag(folder: &str) -> String {
    let hash = digest::digest(&digest::SHA256, folder.as_bytes());
    let start = hash.as_ref().iter().take(4);
    start.fold(String::from(".f"), |text, octet| {
        format!("{text}{octet:02x}")
    })
}

fn received(message: &Candidate<'_>) -> Result<i64, UpstreamError> {
    let reason = "a listing without the time of arrival";
    message
        .received
        .ok_or_else(|| UpstreamError::protocol(reason))
}

fn unreadable(error: MaildropError) -> UpstreamError {
    UpstreamError::protocol(error.to_string().as_str())
}

/// The listing does not tell what unique ids are to be made of.
pub(super) fn unknown(ingredient: Ingredient) -> UpstreamError {
    let reason = match ingredient {
        Ingredient::Uid | Ingredient::UidValidity => {
            "unique_ids needs UIDs, which the upstream does not have"
        }
        Ingredient::Guid | Ingredient::FileName => {
            "unique_ids needs GUIDs, which the upstream does not tell (X-GUID)"
        }
        Ingredient::HeaderMd5 => {
            "unique_ids needs the MD5 sum of the header, which only Dovecot tells, and only of an mbox (X-GUID)"
        }
        Ingredient::EmailId => {
            "unique_ids needs EMAILID, which the upstream does not have (OBJECTID)"
        }
        Ingredient::GmailId => "unique_ids needs X-GM-MSGID, which only Gmail has",
        Ingredient::BlobId => "unique_ids needs blobIds, which only JMAP has",
    };
    UpstreamError::Misconfigured(reason.into())
}

#[cfg(test)]
mod tests;
