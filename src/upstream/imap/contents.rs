//! The one listing of what is in a mailbox, and beside it the searches for
//! messages that are not shown.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::command::Command;
use super::connection::{Connection, Event, Tag, uid_validity};
use super::fetch::Row;
use super::listing::{Details, Entry, Listing, ListingError, Needs};
use super::login::Capabilities;
use super::mailbox::Selected;
use super::status::{Kind, Status};
use crate::upstream::UpstreamError;

/// A listed mailbox.
#[derive(Debug)]
pub(super) struct Contents {
    /// By ascending UID; those that are not shown included.
    pub entries: Vec<Entry>,
    pub details: Details,
    /// Marked `\Deleted`.
    pub deleted: FoundUids,
    /// Marked as not to be shown by POP3, where that was asked for.
    pub hidden: FoundUids,
}

/// UIDs that a search has found.
#[derive(Debug)]
pub(super) struct FoundUids {
    /// In the order of their starts once they are complete.
    ranges: Vec<RangeInclusive<u32>>,
    /// No mailbox needs more ranges than it has messages.
    most: usize,
}

impl FoundUids {
    fn new(exists: u32) -> Self {
        Self {
            ranges: Vec::new(),
            most: (exists as usize).saturating_mul(2).saturating_add(1000),
        }
    }

    fn add(&mut self, found: impl IntoIterator<Item = RangeInclusive<u32>>) -> Result<(), Endless> {
        self.ranges.extend(found);
        if self.ranges.len() > self.most {
            return Err(Endless);
        }
        Ok(())
    }

    /// Sorts the ranges, and joins those that overlap.
    fn complete(mut self) -> Self {
        self.ranges.sort_unstable_by_key(|range| *range.start());
        self.ranges.dedup_by(|next, kept| {
            let overlap = next.start() <= kept.end();
            if overlap && next.end() > kept.end() {
                *kept = *kept.start()..=*next.end();
            }
            overlap
        });
        self
    }

    pub fn contains(&self, uid: u32) -> bool {
        let behind = self.ranges.partition_point(|range| *range.start() <= uid);
        behind > 0
            && self
                .ranges
                .get(behind - 1)
                .is_some_and(|range| range.contains(&uid))
    }
}

/// More was found than can be there.
struct Endless;

impl From<Endless> for UpstreamError {
    fn from(_: Endless) -> Self {
        Self::protocol("a search that finds more than there is")
    }
}

/// Pages that are asked for ahead.
const PAGES_AHEAD: usize = 8;

/// What to ask of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub needs: Needs,
    /// Messages with the keyword of hidden ones are to be found.
    pub hidden: bool,
    /// The most messages that it may hold.
    pub most: u32,
}

/// The listing, and the search for what is marked `\Deleted`, on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    listing: Tag,
    deleted: Tag,
}

impl Asked {
    pub fn tags(self) -> [Tag; 2] {
        [self.listing, self.deleted]
    }
}

/// Asks for both. Nothing that the mailbox has to be known for.
pub(super) async fn ask(
    connection: &mut Connection,
    capabilities: &Capabilities,
    needs: Needs,
) -> Result<Asked, UpstreamError> {
    let listing = Command::new("UID FETCH 1:*").items(&items(needs, false));
    Ok(Asked {
        listing: connection.send(listing).await?,
        deleted: connection.send(search(capabilities, "DELETED")).await?,
    })
}

/// What is heard while a mailbox is listed: all that is said behind the end of
/// its SELECT.
#[derive(Debug)]
pub(super) struct Hearing {
    uid_validity: u32,
    question: Question,
    listing: Listing,
    deleted: FoundUids,
    hidden: FoundUids,
    /// What is found now is hidden, not deleted.
    searches_hidden: bool,
}

impl Hearing {
    /// A mailbox that was just selected.
    pub fn new(selected: &Selected, question: Question) -> Result<Self, UpstreamError> {
        Self::of(selected.uid_validity, selected.exists, question)
    }

    fn of(uid_validity: u32, exists: u32, question: Question) -> Result<Self, UpstreamError> {
        if exists > question.most {
            return Err(UpstreamError::Misconfigured(
                "the mailbox has too many messages".into(),
            ));
        }
        Ok(Self {
            uid_validity,
            question,
            listing: Listing::new(exists, question.most, question.needs),
            deleted: FoundUids::new(exists),
            hidden: FoundUids::new(exists),
            searches_hidden: false,
        })
    }

    pub fn hear(&mut self, event: Event) -> Result<(), UpstreamError> {
        if uid_validity(&event).is_some_and(|other| other != self.uid_validity) {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed while listing",
            ));
        }
        match event {
            Event::Row(row) => self.row(row),
            Event::Exists(exists) => self.listing.exists(exists).map_err(wrong),
            Event::Expunge(seq) => self.listing.expunge(seq).map_err(wrong),
            Event::Found(found) if self.searches_hidden => Ok(self.hidden.add(found)?),
            Event::Found(found) => Ok(self.deleted.add(found)?),
            _ => Ok(()),
        }
    }

    fn row(&mut self, row: Row) -> Result<(), UpstreamError> {
        if let (Some(flags), Some(uid)) = (row.flags, row.uid) {
            if flags.deleted {
                self.deleted.add([uid..=uid])?;
            }
            if flags.hidden && self.question.hidden {
                self.hidden.add([uid..=uid])?;
            }
        }
        self.listing.row(row).map_err(wrong)
    }

    async fn wait(
        &mut self,
        connection: &mut Connection,
        tag: Tag,
    ) -> Result<Status, UpstreamError> {
        let deadline = connection.deadline();
        connection
            .wait(tag, deadline, |event| self.hear(event))
            .await
    }

    /// What is in the mailbox that is selected. `asked`: that was asked for
    /// together with the SELECT.
    pub async fn contents(
        mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Option<Asked>,
    ) -> Result<Contents, UpstreamError> {
        // FETCH 1:* is refused by some where there is nothing (Cyrus).
        let is_empty = self.listing.is_empty();
        match asked {
            Some(Asked { listing, deleted }) if is_empty => {
                self.wait(connection, listing).await?;
                self.wait(connection, deleted).await?;
            }
            Some(asked) => self.hear_all(connection, capabilities, asked).await?,
            None => self.ask_and_hear(connection, capabilities).await?,
        }
        let (entries, details) = self.listing.finish().map_err(wrong)?;
        Ok(Contents {
            entries,
            details,
            deleted: self.deleted.complete(),
            hidden: self.hidden.complete(),
        })
    }

    async fn ask_and_hear(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<(), UpstreamError> {
        let exists = self.listing.count();
        if exists == 0 {
            return Ok(());
        }
        if let Some(limit) = capabilities.message_limit().filter(|it| *it < exists) {
            return self.hear_pages(connection, exists, limit).await;
        }
        let asked = ask(connection, capabilities, self.question.needs).await?;
        let answer = self.wait(connection, asked.listing).await?;
        listed(answer, self.question.needs)?;
        self.hear_searches(connection, capabilities, asked).await
    }

    /// What was asked for ahead. A server that did not know by then which mailbox
    /// is meant is asked again.
    async fn hear_all(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Asked,
    ) -> Result<(), UpstreamError> {
        let needs = self.question.needs;
        let answer = self.wait(connection, asked.listing).await?;
        match listed(answer, needs) {
            Ok(()) => self.hear_searches(connection, capabilities, asked).await,
            Err(UpstreamError::Protocol(_)) => {
                self.wait(connection, asked.deleted).await?;
                *self = Self::of(self.uid_validity, self.listing.exists_now(), self.question)?;
                self.ask_and_hear(connection, capabilities).await
            }
            Err(error) => Err(error),
        }
    }

    async fn hear_searches(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Asked,
    ) -> Result<(), UpstreamError> {
        let mut found = self.wait(connection, asked.deleted).await?;
        // Behind the first: which of two answers is whose is not told by all.
        if self.question.hidden && is_whole(&found) {
            self.searches_hidden = true;
            let search = connection.send(search_hidden(capabilities)).await?;
            found = self.wait(connection, search).await?;
            self.searches_hidden = false;
        }
        if !is_whole(&found) {
            // No search: the flags themselves tell.
            let command = Command::new("UID FETCH 1:* (UID FLAGS)");
            let flags = connection.run(command, |event| self.hear(event)).await?;
            if flags.ok_or_error("listing flags")?.is_coded("MESSAGELIMIT") {
                return Err(UpstreamError::protocol("the flags are not all listed"));
            }
        }
        Ok(())
    }

    /// A search would be cut as well: the rows tell of flags.
    async fn hear_pages(
        &mut self,
        connection: &mut Connection,
        exists: u32,
        limit: u32,
    ) -> Result<(), UpstreamError> {
        let needs = self.question.needs;
        let deadline = connection.deadline();
        let mut ahead: VecDeque<Tag> = VecDeque::new();
        let mut pages = pages(exists, limit, needs);
        loop {
            let page = pages.next();
            if page.is_none() || ahead.len() >= PAGES_AHEAD {
                let Some(first) = ahead.pop_front() else {
                    return Ok(());
                };
                let hear = |event| self.hear(event);
                let answer = connection.wait(first, deadline, hear).await?;
                listed(answer, needs)?;
            }
            if let Some(page) = page {
                ahead.push_back(connection.send(page).await?);
            }
        }
    }
}

fn wrong(error: ListingError) -> UpstreamError {
    UpstreamError::protocol(error.to_string().as_str())
}

fn is_whole(found: &Status) -> bool {
    found.kind == Kind::Ok && !found.is_coded("MESSAGELIMIT")
}

/// The end of a listing. That an extension was not announced shows here only.
fn listed(answer: Status, needs: Needs) -> Result<(), UpstreamError> {
    if needs.guid && answer.kind == Kind::Bad {
        let reason = "unique_ids needs GUIDs, which the upstream does not tell (X-GUID)";
        return Err(UpstreamError::Misconfigured(reason.into()));
    }
    answer.ok_or_error("listing").map(drop)
}

fn search(capabilities: &Capabilities, key: &'static str) -> Command {
    if capabilities.has("ESEARCH") {
        Command::new("UID SEARCH RETURN (ALL)").word(key)
    } else {
        Command::new("UID SEARCH").word(key)
    }
}

fn search_hidden(capabilities: &Capabilities) -> Command {
    search(capabilities, "KEYWORD").word(super::fetch::HIDDEN)
}

/// The data items of a listing.
fn items(needs: Needs, flags: bool) -> String {
    let mut items = "UID RFC822.SIZE".to_owned();
    for (wanted, item) in [
        (flags, " FLAGS"),
        (needs.arrival, " INTERNALDATE"),
        (needs.guid, " X-GUID"),
        (needs.email_id, " EMAILID"),
        (needs.gmail_id, " X-GM-MSGID"),
    ] {
        if wanted {
            items.push_str(item);
        }
    }
    items
}

/// The commands that list a mailbox where the server limits how many messages
/// one may touch (RFC 9738).
fn pages(exists: u32, limit: u32, needs: Needs) -> impl Iterator<Item = Command> {
    let page = move |first: u32| {
        let last = first.saturating_add(limit - 1).min(exists);
        Command::new("FETCH")
            .messages(first, last)
            .items(&items(needs, true))
    };
    (1..=exists).step_by(limit.max(1) as usize).map(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_hide_all_that_they_hold() {
        let mut deleted = FoundUids::new(10);
        assert!(deleted.add([9..=9, 1..=100, 5..=6, 100..=120]).is_ok());
        let deleted = deleted.complete();
        assert!(
            [1, 7, 50, 101, 120]
                .iter()
                .all(|uid| deleted.contains(*uid))
        );
        assert!([0, 121].iter().all(|uid| !deleted.contains(*uid)));
    }

    #[test]
    fn a_search_finds_no_more_than_there_is() {
        let mut deleted = FoundUids::new(10);
        assert!(deleted.add((1..=1020).map(|uid| uid..=uid)).is_ok());
        assert!(deleted.add([1..=1]).is_err());
    }

    #[test]
    fn pages_cover_the_mailbox_and_no_more() {
        let pages: Vec<String> = pages(7, 3, Needs::default())
            .map(|page| page.pieces().map(String::from_utf8_lossy).collect())
            .collect();
        let of = |messages: &str| format!("FETCH {messages} (UID RFC822.SIZE FLAGS)");
        assert_eq!(pages, [of("1:3"), of("4:6"), of("7:7")]);
    }

    #[test]
    fn only_what_is_needed_is_asked_for() {
        assert_eq!(items(Needs::default(), false), "UID RFC822.SIZE");
        let all = Needs {
            arrival: true,
            guid: true,
            email_id: true,
            gmail_id: true,
        };
        let expected = "UID RFC822.SIZE FLAGS INTERNALDATE X-GUID EMAILID X-GM-MSGID";
        assert_eq!(items(all, true), expected);
    }
}
