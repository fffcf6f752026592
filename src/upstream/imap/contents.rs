//! The one listing of what is in a mailbox, and beside it the searches for
//! messages that are not shown.

use std::collections::VecDeque;

use super::command::Command;
use super::connection::{Connection, Event, Tag, uid_validity};
use super::fetch::Row;
use super::found_uids::FoundUids;
use super::known::{Known, Point};
use super::listing::{Details, Entry, Listing, ListingError, Needs};
use super::login::Capabilities;
use super::mailbox::Selected;
use super::status::{Kind, Status};
use super::warm::Basis;
use crate::metrics::Opening;
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
    /// For the next opening; `None`: nothing that could be brought up to date.
    pub known: Option<Known>,
    pub how: Opening,
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
    pub listing: Tag,
    pub deleted: Tag,
}

impl Asked {
    pub fn tags(self) -> [Tag; 2] {
        [self.listing, self.deleted]
    }
}

/// Asks for both, where there is a `basis` only for what it does not have.
/// Nothing that the mailbox has to be known for.
pub(super) async fn ask(
    connection: &mut Connection,
    capabilities: &Capabilities,
    needs: Needs,
    basis: Option<&Basis>,
) -> Result<Asked, UpstreamError> {
    let listing = match basis {
        Some(basis) => basis.news(),
        None => Command::new("UID FETCH 1:*").items(&items(needs, false)),
    };
    Ok(Asked {
        listing: connection.send(listing).await?,
        deleted: connection.send(search(capabilities, "DELETED")).await?,
    })
}

/// What is heard while a mailbox is listed: all that is said behind the end of
/// its SELECT.
#[derive(Debug)]
pub(super) struct Hearing {
    pub point: Point,
    question: Question,
    /// Messages in the mailbox now.
    pub exists: u32,
    /// What was known before.
    pub basis: Option<Basis>,
    pub listing: Listing,
    /// Why the listing is of no use.
    pub doubt: Option<ListingError>,
    pub searches: Searches,
    deleted: FoundUids,
    hidden: FoundUids,
    pub all: FoundUids,
}

/// What it is that searches find now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searches {
    Deleted,
    Hidden,
    All,
}

impl Hearing {
    /// A mailbox that was just selected.
    pub fn new(selected: &Selected, question: Question) -> Result<Self, UpstreamError> {
        let point = Point {
            uid_validity: selected.uid_validity,
            uid_next: selected.uid_next,
            highest_modseq: selected.highest_modseq,
        };
        Self::of(point, selected.exists, question)
    }

    fn of(point: Point, exists: u32, question: Question) -> Result<Self, UpstreamError> {
        if exists > question.most {
            return Err(UpstreamError::Misconfigured(
                "the mailbox has too many messages".into(),
            ));
        }
        Ok(Self {
            point,
            question,
            exists,
            basis: None,
            listing: Listing::new(exists, question.most, question.needs),
            doubt: None,
            searches: Searches::Deleted,
            deleted: FoundUids::new(exists),
            hidden: FoundUids::new(exists),
            all: FoundUids::new(exists),
        })
    }

    /// The most messages that the mailbox may hold.
    pub fn most(&self) -> u32 {
        self.question.most
    }

    pub fn hear(&mut self, event: Event) -> Result<(), UpstreamError> {
        if uid_validity(&event).is_some_and(|other| other != self.point.uid_validity) {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed while listing",
            ));
        }
        match event {
            Event::Row(row) => self.row(row),
            Event::Exists(exists) => {
                self.counts(exists.checked_sub(self.exists).map(|_| exists))?;
                self.list(|listing| listing.exists(exists))
            }
            Event::Expunge(seq) => {
                let left = self
                    .exists
                    .checked_sub(1)
                    .filter(|_| seq > 0 && seq <= self.exists);
                self.counts(left)?;
                self.list(|listing| listing.expunge(seq))
            }
            Event::Vanished(vanished) if !vanished.is_earlier => {
                self.counts(self.exists.checked_sub(vanished.count()))?;
                self.list(|listing| listing.vanished(&vanished.uids))
            }
            Event::Found(found) => Ok(match self.searches {
                Searches::Deleted => self.deleted.add(found),
                Searches::Hidden => self.hidden.add(found),
                Searches::All => self.all.add(found),
            }?),
            _ => Ok(()),
        }
    }

    /// How many messages there are now; `None`: that cannot be, whatever the
    /// listing is worth.
    fn counts(&mut self, exists: Option<u32>) -> Result<(), UpstreamError> {
        self.exists = exists.ok_or_else(|| wrong(ListingError::NoSuchMessage))?;
        Ok(())
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
        if let (Some(basis), Some(uid), Some(_)) = (&mut self.basis, row.uid, row.octets) {
            basis.heard(uid);
        }
        self.list(|listing| listing.row(row))
    }

    /// Tells the listing. What it cannot make sense of is the end of what was
    /// built on a basis, or where it may be clear at a second look: of all others
    /// it is an error.
    fn list(
        &mut self,
        tell: impl FnOnce(&mut Listing) -> Result<(), ListingError>,
    ) -> Result<(), UpstreamError> {
        if self.doubt.is_some() {
            return Ok(());
        }
        match tell(&mut self.listing) {
            Ok(()) => Ok(()),
            Err(error) if self.basis.is_some() || error == ListingError::Unclear => {
                self.doubt = Some(error);
                Ok(())
            }
            Err(error) => Err(wrong(error)),
        }
    }

    pub async fn wait(
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
            Some(asked) if self.basis.is_some() => {
                if let Some((entries, details, known)) =
                    self.refresh(connection, capabilities, asked).await?
                {
                    return Ok(Contents {
                        entries,
                        details,
                        deleted: self.deleted.complete(),
                        hidden: self.hidden.complete(),
                        known: Some(known),
                        how: Opening::Refreshed,
                    });
                }
                self.list_anew(connection, capabilities).await?;
            }
            Some(Asked { listing, deleted }) if is_empty => {
                self.wait(connection, listing).await?;
                self.wait(connection, deleted).await?;
            }
            Some(asked) => self.hear_all(connection, capabilities, asked).await?,
            None => self.ask_and_hear(connection, capabilities).await?,
        }
        if self.doubt.is_some() {
            self.list_anew(connection, capabilities).await?;
        }
        if let Some(error) = self.doubt {
            return Err(UpstreamError::temporary(error.to_string().as_str()));
        }
        let (entries, details) = self.listing.finish().map_err(wrong)?;
        // Numbers that do not follow the UIDs could not be told next time.
        let is_regular = entries.windows(2).all(|two| two[0].place < two[1].place);
        // What was not told this time may be told the next.
        let is_whole = details.are_whole(&entries, self.question.needs);
        let known = (is_regular && is_whole)
            .then(|| Known::new(self.point, self.question.needs, &entries, &details))
            .flatten();
        Ok(Contents {
            entries,
            details,
            deleted: self.deleted.complete(),
            hidden: self.hidden.complete(),
            known,
            how: Opening::Listed,
        })
    }

    /// Lists all of the mailbox, whatever was heard of it so far.
    async fn list_anew(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<(), UpstreamError> {
        *self = Self::of(self.point, self.exists, self.question)?;
        self.ask_and_hear(connection, capabilities).await
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
        let asked = ask(connection, capabilities, self.question.needs, None).await?;
        let answer = self.wait(connection, asked.listing).await?;
        listed(answer, self.question.needs)?;
        self.hear_searches(connection, capabilities, asked).await?;
        Ok(())
    }

    /// What was asked for ahead. A server that did not know by then which mailbox
    /// is meant is asked again.
    async fn hear_all(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Asked,
    ) -> Result<(), UpstreamError> {
        let answer = self.wait(connection, asked.listing).await?;
        match listed(answer, self.question.needs) {
            Ok(()) => self.hear_searches(connection, capabilities, asked).await,
            Err(UpstreamError::Protocol(_)) => {
                self.wait(connection, asked.deleted).await?;
                self.list_anew(connection, capabilities).await
            }
            Err(error) => Err(error),
        }
    }

    pub async fn hear_searches(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Asked,
    ) -> Result<(), UpstreamError> {
        let mut found = self.wait(connection, asked.deleted).await?;
        // Behind the first: which of two answers is whose is not told by all.
        if self.question.hidden && is_whole(&found) {
            self.searches = Searches::Hidden;
            let search = connection.send(search_hidden(capabilities)).await?;
            found = self.wait(connection, search).await?;
            self.searches = Searches::Deleted;
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

pub(super) fn is_whole(found: &Status) -> bool {
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

pub(super) fn search(capabilities: &Capabilities, key: &'static str) -> Command {
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
pub(super) fn items(needs: Needs, flags: bool) -> String {
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
