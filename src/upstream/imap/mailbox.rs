//! Opening the mailbox: LIST, SELECT, and the one listing of what is in it.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;

use super::command::Command;
use super::connection::{Connection, Event, Tag, uid_validity};
use super::listing::{Entry, Listing};
use super::login::Capabilities;
use super::status::{Code, Kind, Status};
use super::untagged::Listed;
use crate::maildrop::{DeletePolicy, Policy};
use crate::upstream::UpstreamError;

/// How marked messages leave the mailbox, as far as this upstream can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// `UID MOVE` to this mailbox (RFC 6851).
    Move(String),
    /// `UID COPY` to this mailbox, then as for `Expunge`.
    CopyThenExpunge(String),
    /// `UID STORE +FLAGS (\Deleted)`, then `UID EXPUNGE` (RFC 4315).
    Expunge,
    /// Not at all; the mailbox is opened by EXAMINE.
    Never,
}

/// What SELECT or EXAMINE told (RFC 3501 §6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub exists: u32,
    pub uid_validity: u32,
}

/// A mailbox with its listing.
#[derive(Debug)]
pub(super) struct Opened {
    pub selected: Selected,
    pub removal: Removal,
    /// The visible messages, by ascending UID.
    pub entries: Vec<Entry>,
    /// Of these, the ones that carry `\Deleted` all the same, because an
    /// update of ours did not come to its end.
    pub marked: Vec<u32>,
}

/// Names of a Trash where the server does not say which mailbox it is.
const TRASH_NAMES: [&str; 3] = ["Trash", "Deleted Messages", "Deleted Items"];

/// Mailboxes that may be the Trash, kept from all answers to LIST.
const MOST_LISTED: usize = 1000;

/// SELECT, or EXAMINE where nothing can be written.
pub(super) async fn select(
    connection: &mut Connection,
    writes: bool,
) -> Result<Selected, UpstreamError> {
    let mut told = Told::default();
    let answer = connection
        .run(select_command(writes), |event| told.hear(event))
        .await?;
    told.selected(answer, writes)
}

fn select_command(writes: bool) -> Command {
    Command::new(if writes { "SELECT" } else { "EXAMINE" }).word("INBOX")
}

/// What is said while SELECT and LIST are under way. A server may answer the
/// two in either order.
#[derive(Debug, Default)]
struct Told {
    exists: Option<u32>,
    uid_validity: Option<u32>,
    listed: Vec<Listed>,
}

impl Told {
    fn hear(&mut self, event: Event) -> Result<(), UpstreamError> {
        self.uid_validity = uid_validity(&event).or(self.uid_validity);
        match event {
            Event::Exists(now) => self.exists = Some(now),
            Event::Expunge(_) => self.exists = self.exists.and_then(|now| now.checked_sub(1)),
            // Of thousands of folders few can be the Trash.
            Event::List(mailbox) if may_be_trash(&mailbox) => {
                if self.listed.len() >= MOST_LISTED {
                    return Err(UpstreamError::protocol("too many mailboxes like a Trash"));
                }
                self.listed.push(mailbox);
            }
            _ => {}
        }
        Ok(())
    }

    fn selected(&self, answer: Status, writes: bool) -> Result<Selected, UpstreamError> {
        let answer = answer.ok_or_error("SELECT")?;
        if writes && answer.code == Some(Code::ReadOnly) {
            let reason = "the mailbox is read-only, and the delete policy needs to write";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        match (self.exists, self.uid_validity) {
            (Some(exists), Some(uid_validity)) if uid_validity != 0 => Ok(Selected {
                exists,
                uid_validity,
            }),
            _ => Err(UpstreamError::protocol(
                "SELECT without EXISTS or UIDVALIDITY",
            )),
        }
    }
}

/// Opens INBOX and lists it, in a constant number of round trips. `unfinished`
/// tells which messages stay visible although they carry `\Deleted`.
pub(super) async fn open(
    connection: &mut Connection,
    capabilities: &Capabilities,
    policy: &Policy,
    most: u32,
    unfinished: impl FnOnce(u32) -> HashSet<u32>,
) -> Result<Opened, UpstreamError> {
    let writes = policy.writes();
    let deadline = connection.deadline();
    // LIST and SELECT do not depend on each other: one round trip for both.
    let mut lists = Vec::new();
    if matches!(
        policy.delete,
        DeletePolicy::Trash | DeletePolicy::TrashIfThere
    ) {
        for command in list_commands(capabilities) {
            lists.push(connection.send(command).await?);
        }
    }
    let select = connection.send(select_command(writes)).await?;
    let mut told = Told::default();
    let mut no_selection = false;
    for tag in lists {
        let answer = connection
            .wait(tag, deadline, |event| told.hear(event))
            .await?;
        match answer.kind {
            // It has special uses, but not the extended LIST to ask for them
            // (RFC 6154 §2): then they are in the answer to the plain one.
            Kind::Bad => no_selection = true,
            _ => {
                answer.ok_or_error("LIST")?;
            }
        }
    }
    let answer = connection
        .wait(select, deadline, |event| told.hear(event))
        .await?;
    let selected = told.selected(answer, writes)?;
    if no_selection {
        connection
            .run(Command::new("LIST \"\" \"*\""), |event| told.hear(event))
            .await?
            .ok_or_error("LIST")?;
    }
    let removal = removal(&policy.delete, &told.listed, capabilities)?;
    if selected.exists == 0 {
        // FETCH 1:* would be refused by some (Cyrus).
        return Ok(Opened {
            selected,
            removal,
            entries: Vec::new(),
            marked: Vec::new(),
        });
    }
    if selected.exists > most {
        return Err(UpstreamError::Misconfigured(
            "the mailbox has too many messages".into(),
        ));
    }
    let (mut entries, deleted) = list(connection, capabilities, selected, most).await?;
    let unfinished = unfinished(selected.uid_validity);
    let mut marked = Vec::new();
    entries.retain(|entry| {
        if !deleted.contains(entry.uid) {
            return true;
        }
        let ours = unfinished.contains(&entry.uid);
        if ours {
            marked.push(entry.uid);
        }
        ours
    });
    Ok(Opened {
        selected,
        removal,
        entries,
        marked,
    })
}

/// Commands whose answers name the Trash, if there is one: by special use
/// (RFC 6154) and by name. The patterns keep the answers short where there are
/// thousands of folders.
fn list_commands(capabilities: &Capabilities) -> Vec<Command> {
    let mut commands = Vec::new();
    if capabilities.has("SPECIAL-USE") {
        commands.push(Command::new("LIST (SPECIAL-USE) \"\" \"*\""));
    }
    for pattern in ["\"*Trash\"", "\"*Deleted Messages\"", "\"*Deleted Items\""] {
        commands.push(Command::new("LIST \"\"").word(pattern));
    }
    commands
}

/// The Trash among the listed mailboxes.
fn trash(listed: &[Listed]) -> Option<&Listed> {
    let usable = || listed.iter().filter(|it| may_be_trash(it));
    let named = |name: &str| usable().find(|it| leaf(it).is_some_and(|leaf| leaf == name));
    usable()
        .find(|it| it.is_trash)
        .or_else(|| TRASH_NAMES.iter().find_map(|name| named(name)))
}

/// Whether messages can be moved there, and by its use or name should be. Moved
/// from INBOX to INBOX they would stay where they are.
fn may_be_trash(mailbox: &Listed) -> bool {
    let usable = mailbox.is_selectable
        && !mailbox.name.is_empty()
        && !mailbox.name.eq_ignore_ascii_case("INBOX");
    usable && (mailbox.is_trash || leaf(mailbox).is_some_and(|leaf| TRASH_NAMES.contains(&leaf)))
}

/// The name of a mailbox on the top level, or directly below INBOX or Gmail's
/// own folder.
fn leaf(mailbox: &Listed) -> Option<&str> {
    let Some(delimiter) = mailbox.delimiter.as_deref().filter(|it| !it.is_empty()) else {
        return Some(&mailbox.name);
    };
    match mailbox.name.split_once(delimiter) {
        None => Some(&mailbox.name),
        Some((parent, leaf)) => {
            let expected = ["INBOX", "[Gmail]", "[Google Mail]"];
            let known = expected.iter().any(|it| it.eq_ignore_ascii_case(parent));
            (known && !leaf.contains(delimiter)).then_some(leaf)
        }
    }
}

/// How the policy is carried out here. What cannot be done is refused now, at
/// login, not at QUIT.
fn removal(
    policy: &DeletePolicy,
    listed: &[Listed],
    capabilities: &Capabilities,
) -> Result<Removal, UpstreamError> {
    let uidplus = capabilities.has("UIDPLUS");
    let moves = capabilities.has("MOVE");
    let refuse = |reason: &str| Err(UpstreamError::Misconfigured(reason.into()));
    match (policy, trash(listed)) {
        (DeletePolicy::Refuse, _) => Ok(Removal::Never),
        (DeletePolicy::Trash | DeletePolicy::TrashIfThere, Some(trash)) if moves => {
            Ok(Removal::Move(trash.name.clone()))
        }
        (DeletePolicy::Trash | DeletePolicy::TrashIfThere, Some(trash)) if uidplus => {
            Ok(Removal::CopyThenExpunge(trash.name.clone()))
        }
        (DeletePolicy::Trash, None) => {
            refuse("delete = \"trash\", but the upstream shows no Trash")
        }
        (DeletePolicy::Expunge | DeletePolicy::TrashIfThere, _) if uidplus => Ok(Removal::Expunge),
        _ => refuse(
            "the upstream can neither move messages nor remove chosen ones \
             (no MOVE, no UIDPLUS): only delete = \"refuse\" is possible",
        ),
    }
}

/// UIDs that carry `\Deleted`.
#[derive(Debug)]
struct DeletedUids {
    /// In the order of their starts once they are complete.
    ranges: Vec<RangeInclusive<u32>>,
    /// No mailbox needs more ranges than it has messages.
    most: usize,
}

impl DeletedUids {
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

    fn contains(&self, uid: u32) -> bool {
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

/// The one listing, and beside it the search for messages that are hidden.
async fn list(
    connection: &mut Connection,
    capabilities: &Capabilities,
    selected: Selected,
    most: u32,
) -> Result<(Vec<Entry>, DeletedUids), UpstreamError> {
    let deadline = connection.deadline();
    let mut listing = Listing::new(selected.exists, most);
    let mut deleted = DeletedUids::new(selected.exists);
    let mut hear = |event: Event| {
        if uid_validity(&event).is_some_and(|other| other != selected.uid_validity) {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed while listing",
            ));
        }
        let heard = match event {
            Event::Row(row) => {
                if let (Some(true), Some(uid)) = (row.deleted, row.uid) {
                    deleted.add([uid..=uid])?;
                }
                listing.row(row)
            }
            Event::Exists(exists) => listing.exists(exists),
            Event::Expunge(seq) => listing.expunge(seq),
            Event::Found(found) => {
                deleted.add(found)?;
                Ok(())
            }
            _ => Ok(()),
        };
        heard.map_err(|error| UpstreamError::protocol(error.to_string().as_str()))
    };
    let limit = capabilities
        .message_limit()
        .filter(|limit| *limit < selected.exists);
    let mut listed_flags = limit.is_some();
    if let Some(limit) = limit {
        // A search would be cut as well: the rows tell of \Deleted.
        let mut ahead: VecDeque<Tag> = VecDeque::new();
        for page in pages(selected.exists, limit) {
            if ahead.len() >= PAGES_AHEAD
                && let Some(first) = ahead.pop_front()
            {
                let answer = connection.wait(first, deadline, &mut hear).await?;
                answer.ok_or_error("listing")?;
            }
            ahead.push_back(connection.send(page).await?);
        }
        for page in ahead {
            let answer = connection.wait(page, deadline, &mut hear).await?;
            answer.ok_or_error("listing")?;
        }
    } else {
        let fetch = Command::new("UID FETCH 1:* (UID RFC822.SIZE)");
        let fetch = connection.send(fetch).await?;
        let search = connection.send(search(capabilities)).await?;
        let answer = connection.wait(fetch, deadline, &mut hear).await?;
        answer.ok_or_error("listing")?;
        let found = connection.wait(search, deadline, &mut hear).await?;
        listed_flags = found.kind == Kind::Ok && !found.is_coded("MESSAGELIMIT");
    }
    if !listed_flags {
        // No search: the flags themselves tell.
        let command = Command::new("UID FETCH 1:* (UID FLAGS)");
        let flags = connection.run(command, &mut hear).await?;
        if flags.ok_or_error("listing flags")?.is_coded("MESSAGELIMIT") {
            return Err(UpstreamError::protocol("the flags are not all listed"));
        }
    }
    let entries = listing
        .finish()
        .map_err(|error| UpstreamError::protocol(error.to_string().as_str()))?;
    Ok((entries, deleted.complete()))
}

fn search(capabilities: &Capabilities) -> Command {
    if capabilities.has("ESEARCH") {
        Command::new("UID SEARCH RETURN (ALL) DELETED")
    } else {
        Command::new("UID SEARCH DELETED")
    }
}

/// The commands that list a mailbox where the server limits how many messages
/// one may touch (RFC 9738).
fn pages(exists: u32, limit: u32) -> impl Iterator<Item = Command> {
    let page = move |first: u32| {
        let last = first.saturating_add(limit - 1).min(exists);
        Command::new("FETCH")
            .messages(first, last)
            .word("(UID RFC822.SIZE FLAGS)")
    };
    (1..=exists).step_by(limit.max(1) as usize).map(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: &str, is_trash: bool) -> Listed {
        let delimiter = Some(if name.contains('.') { "." } else { "/" }.to_owned());
        Listed {
            name: name.to_owned(),
            delimiter,
            is_trash,
            is_selectable: true,
        }
    }

    #[test]
    fn the_trash_is_found_by_its_use_or_by_its_name() {
        let by_use = [mailbox("Trash", false), mailbox("Papelera", true)];
        assert_eq!(trash(&by_use).unwrap().name, "Papelera");
        let courier = [
            mailbox("INBOX.Projects.Trash", false),
            mailbox("INBOX.Trash", false),
        ];
        assert_eq!(trash(&courier).unwrap().name, "INBOX.Trash");
        let exchange = [mailbox("Deleted Items", false)];
        assert_eq!(trash(&exchange).unwrap().name, "Deleted Items");
        assert_eq!(trash(&[mailbox("Projects/Trash", false)]), None);
        let mut unselectable = mailbox("Trash", true);
        unselectable.is_selectable = false;
        assert_eq!(trash(&[unselectable]), None);
    }

    #[test]
    fn the_inbox_is_no_trash() {
        assert_eq!(trash(&[mailbox("inbox", true)]), None);
        let both = [mailbox("INBOX", true), mailbox("Trash", false)];
        assert_eq!(trash(&both).unwrap().name, "Trash");
    }

    #[test]
    fn ranges_that_overlap_hide_all_that_they_hold() {
        let mut deleted = DeletedUids::new(10);
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
        let mut deleted = DeletedUids::new(10);
        assert!(deleted.add((1..=1020).map(|uid| uid..=uid)).is_ok());
        assert!(deleted.add([1..=1]).is_err());
    }

    #[test]
    fn pages_cover_the_mailbox_and_no_more() {
        let pages: Vec<String> = pages(7, 3)
            .map(|page| page.pieces().map(String::from_utf8_lossy).collect())
            .collect();
        let of = |messages: &str| format!("FETCH {messages} (UID RFC822.SIZE FLAGS)");
        assert_eq!(pages, [of("1:3"), of("4:6"), of("7:7")]);
    }
}
