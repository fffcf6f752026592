//! Opening a mailbox: SELECT or EXAMINE, and what is told meanwhile.

use super::command::Command;
use super::connection::{Connection, Event, uid_validity};
use super::fetch::HIDDEN;
use super::status::{Code, Kind, Status};
use crate::upstream::{Reason, UpstreamError};

/// What SELECT or EXAMINE told (RFC 3501 §6.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub exists: u32,
    pub uid_validity: u32,
    pub read_only: bool,
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
            Event::MyRights(rights) => self.rights = Some(rights),
            Event::Hides => self.hides = true,
            Event::Untagged(Status {
                code: Some(Code::PermanentFlags(flags)),
                ..
            }) => {
                self.hides |= flags.iter().any(|flag| flag.eq_ignore_ascii_case(HIDDEN));
                self.permanent = Some(flags);
            }
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
                hides: self.hides,
                permanent: self.permanent.take(),
            }),
            _ => Err(UpstreamError::protocol(
                "SELECT without EXISTS or UIDVALIDITY",
            )),
        }
    }
}
