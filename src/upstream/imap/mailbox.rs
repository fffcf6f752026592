//! Opening a mailbox: SELECT or EXAMINE, and what is told meanwhile.

use std::ops::RangeInclusive;

use super::command::Command;
use super::connection::{Connection, Event, uid_validity};
use super::fetch::HIDDEN;
use super::status::{Code, Kind, Status};
use crate::upstream::{Reason, UpstreamError};

/// Ranges of UIDs that are heard to be gone.
const MOST_VANISHED: usize = 200_000;

/// What SELECT or EXAMINE told (RFC 3501 §6.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub exists: u32,
    pub uid_validity: u32,
    pub read_only: bool,
    /// UIDNEXT, where it was told.
    pub uid_next: Option<u32>,
    /// HIGHESTMODSEQ (RFC 7162 §3.1.2.1), where it was told.
    pub highest_modseq: Option<u64>,
    /// The keyword of hidden messages is in use there.
    pub hides: bool,
    /// Flags whose changes last, where it was told which.
    permanent: Option<Vec<String>>,
}

impl Selected {
    /// Whether the flag can be set so that it lasts; `None`: not told.
    pub fn keeps(&self, flag: &str) -> Option<bool> {
        let is_keyword = !flag.starts_with('\\');
        let keeps = |it: &String| it.eq_ignore_ascii_case(flag) || (is_keyword && it == "\\*");
        Some(self.permanent.as_ref()?.iter().any(keeps))
    }

    #[cfg(test)]
    pub fn with_permanent_flags(flags: &[&str]) -> Self {
        Self {
            exists: 0,
            uid_validity: 1,
            read_only: false,
            uid_next: None,
            highest_modseq: None,
            hides: false,
            permanent: Some(flags.iter().map(|flag| (*flag).to_owned()).collect()),
        }
    }
}

/// SELECT, or EXAMINE where nothing is written. `Gone`: the mailbox no longer
/// exists.
pub(super) async fn select(
    connection: &mut Connection,
    name: &str,
    writes: bool,
) -> Result<Selected, UpstreamError> {
    let mut told = Told::default();
    let answer = connection
        .run(select_command(name, writes)?, |event| {
            told.hear(event);
            Ok(())
        })
        .await?;
    if answer.kind == Kind::No && name != "INBOX" && is_gone(connection, name, &answer).await? {
        return Err(UpstreamError::Gone);
    }
    let selected = told.selected(answer, name)?;
    if writes && selected.read_only {
        let reason = "the mailbox has become read-only";
        return Err(UpstreamError::Misconfigured(reason.into()));
    }
    Ok(selected)
}

pub(super) fn select_command(name: &str, writes: bool) -> Result<Command, UpstreamError> {
    let command = Command::new(if writes { "SELECT" } else { "EXAMINE" });
    Ok(match name {
        "INBOX" => command.word("INBOX"),
        _ => command.mailbox(name)?,
    })
}

/// Whether a mailbox that cannot be selected does not exist.
async fn is_gone(
    connection: &mut Connection,
    name: &str,
    answer: &Status,
) -> Result<bool, UpstreamError> {
    if answer.is_coded("NONEXISTENT") {
        return Ok(true);
    }
    let mut there = false;
    let hear = |event| {
        there |=
            matches!(event, Event::List(listed) if listed.name == name && listed.is_selectable);
        Ok(())
    };
    let list = Command::new("LIST \"\"").mailbox(name)?;
    let listed = connection.run(list, hear).await?;
    Ok(listed.kind == Kind::Ok && !there)
}

/// What is said while SELECT is under way.
#[derive(Debug, Default)]
pub(super) struct Told {
    exists: Option<u32>,
    uid_validity: Option<u32>,
    uid_next: Option<u32>,
    highest_modseq: Option<u64>,
    /// Gone since the state that SELECT named (RFC 7162 §3.2.5.1).
    pub vanished: Vec<RangeInclusive<u32>>,
    permanent: Option<Vec<String>>,
    hides: bool,
    /// What the user may do there (RFC 4314), where that was asked and told.
    pub rights: Option<String>,
}

impl Told {
    pub fn hear(&mut self, event: Event) {
        self.uid_validity = uid_validity(&event).or(self.uid_validity);
        match event {
            Event::Exists(now) => self.exists = Some(now),
            Event::Expunge(_) => self.exists = self.exists.and_then(|now| now.checked_sub(1)),
            // What is too much is left out, and missed when all is counted.
            Event::Vanished(vanished) if vanished.is_earlier => {
                let room = MOST_VANISHED.saturating_sub(self.vanished.len());
                self.vanished.extend(vanished.uids.into_iter().take(room));
            }
            Event::Vanished(vanished) => {
                self.exists = self
                    .exists
                    .and_then(|now| now.checked_sub(vanished.count()));
            }
            Event::MyRights(rights) => self.rights = Some(rights),
            Event::Hides => self.hides = true,
            Event::Untagged(status) => match status.code {
                Some(Code::PermanentFlags(flags)) => {
                    self.hides |= flags.iter().any(|flag| flag.eq_ignore_ascii_case(HIDDEN));
                    self.permanent = Some(flags);
                }
                Some(Code::UidNext(uid)) => self.uid_next = Some(uid),
                Some(Code::HighestModSeq(modseq)) => self.highest_modseq = Some(modseq),
                Some(Code::NoModSeq) => self.highest_modseq = None,
                _ => {}
            },
            _ => {}
        }
    }

    /// Whether the rights that were told leave out reading (RFC 4314 §4).
    fn may_not_read(&self) -> bool {
        let rights = self.rights.as_ref();
        rights.is_some_and(|rights| !rights.contains('r'))
    }

    /// What SELECT has opened, by its answer.
    pub fn selected(&mut self, answer: Status, name: &str) -> Result<Selected, UpstreamError> {
        let is_refused = answer.kind == Kind::No && self.may_not_read();
        if answer.denies_access() || is_refused {
            let reason = Reason::quoting("the folder cannot be opened", name);
            // Any user can name a folder; an inbox that is not there is the
            // operator's affair.
            return Err(match name {
                "INBOX" => UpstreamError::Misconfigured(reason),
                _ => UpstreamError::NoFolder(reason),
            });
        }
        let answer = answer.ok_or_error("SELECT")?;
        match (self.exists, self.uid_validity) {
            (Some(exists), Some(uid_validity)) if uid_validity != 0 => Ok(Selected {
                exists,
                uid_validity,
                read_only: answer.code == Some(Code::ReadOnly),
                uid_next: self.uid_next,
                highest_modseq: self.highest_modseq,
                hides: self.hides,
                permanent: self.permanent.take(),
            }),
            _ => Err(UpstreamError::protocol(
                "SELECT without EXISTS or UIDVALIDITY",
            )),
        }
    }
}
