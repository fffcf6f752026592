//! All that a user's mailboxes hold, and what of it has changed since: so that a
//! test says of a whole account "exactly this changed".

use std::collections::BTreeMap;

use super::imap_client::{ImapClient, Response, uid_and_flags};

/// All mailboxes of a user that can be opened, by their names on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, Mailbox>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mailbox {
    uid_validity: u32,
    messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    uid: u32,
    /// Flags and keywords, sorted; without `\Recent`.
    flags: Vec<String>,
    /// The Message-ID without its angle brackets; without a Message-ID, the
    /// start of the Subject.
    name: String,
}

impl Contents {
    /// Reads all of it and changes nothing.
    pub fn of(imap: &mut ImapClient) -> Self {
        let names = mailboxes(imap);
        Self(
            names
                .into_iter()
                .filter_map(|name| Some((name.clone(), mailbox(imap, &name)?)))
                .collect(),
        )
    }

    /// What a mailbox holds, in the order of UIDs.
    pub fn names(&self, mailbox: &str) -> Vec<&str> {
        let mailbox = self.0.get(mailbox).map(|it| it.messages.as_slice());
        let messages = mailbox.unwrap_or_default().iter();
        messages.map(|message| message.name.as_str()).collect()
    }

    /// What happened on the way from here to `later`, sorted:
    ///
    /// - `INBOX -2@example.org`: it has left the mailbox,
    /// - `Trash +2@example.org \Seen`: it has come, with these flags,
    /// - `INBOX 3@example.org +\Seen -$Later`: its flags have changed,
    /// - `Archive made`, `Archive gone`, `INBOX UIDVALIDITY changed`.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let nothing = Vec::new();
        let mut changes = Vec::new();
        for (name, old) in &self.0 {
            let Some(new) = later.0.get(name) else {
                changes.push(format!("{name} gone"));
                continue;
            };
            if old.uid_validity != new.uid_validity {
                changes.push(format!("{name} UIDVALIDITY changed"));
            }
            compare(name, &old.messages, &new.messages, &mut changes);
        }
        for (name, new) in &later.0 {
            if !self.0.contains_key(name) {
                changes.push(format!("{name} made"));
                compare(name, &nothing, &new.messages, &mut changes);
            }
        }
        changes.sort();
        changes
    }
}

fn compare(mailbox: &str, old: &[Message], new: &[Message], changes: &mut Vec<String>) {
    let same = |one: &Message, other: &Message| (one.uid, &one.name) == (other.uid, &other.name);
    for message in old {
        let Some(now) = new.iter().find(|it| same(it, message)) else {
            changes.push(format!("{mailbox} -{}", message.name));
            continue;
        };
        let added = now.flags.iter().filter(|it| !message.flags.contains(it));
        let removed = message.flags.iter().filter(|it| !now.flags.contains(it));
        let flags: Vec<String> = added
            .map(|flag| format!(" +{flag}"))
            .chain(removed.map(|flag| format!(" -{flag}")))
            .collect();
        if !flags.is_empty() {
            changes.push(format!("{mailbox} {}{}", message.name, flags.concat()));
        }
    }
    for message in new {
        if !old.iter().any(|it| same(it, message)) {
            let flags: Vec<String> = message.flags.iter().map(|it| format!(" {it}")).collect();
            changes.push(format!("{mailbox} +{}{}", message.name, flags.concat()));
        }
    }
}

/// The mailboxes that may be opened, as a server lists them.
pub(super) fn mailboxes(imap: &mut ImapClient) -> Vec<String> {
    let listed = imap.ok("LIST \"\" *");
    listed
        .iter()
        .filter_map(|response| {
            let (flags, rest) = response.text.strip_prefix("* LIST (")?.split_once(") ")?;
            let flags = flags.to_ascii_lowercase();
            if flags.contains("\\noselect") || flags.contains("\\nonexistent") {
                return None;
            }
            let (_, name) = rest.split_once(' ')?;
            Some(name.trim_matches('"').to_owned())
        })
        .collect()
}

/// `None` where it may not be read.
fn mailbox(imap: &mut ImapClient, name: &str) -> Option<Mailbox> {
    let opened = imap.command(&format!("EXAMINE \"{name}\""));
    let last = &opened.last().unwrap().text;
    if last.split(' ').nth(1) != Some("OK") {
        return None;
    }
    let validity = opened
        .iter()
        .find_map(|response| response.text.split_once("[UIDVALIDITY "))
        .unwrap_or_else(|| panic!("{name}: no UIDVALIDITY"));
    let uid_validity = validity.1.split(']').next().unwrap().parse().unwrap();
    // Cyrus answers NO to FETCH 1:* in an empty mailbox.
    let empty = opened.iter().any(|response| response.text == "* 0 EXISTS");
    let mut messages: Vec<Message> = if empty {
        Vec::new()
    } else {
        imap.ok("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID SUBJECT)])")
            .iter()
            .filter(|response| response.text.contains(" FETCH ("))
            .map(message)
            .collect()
    };
    messages.sort_by_key(|message| message.uid);
    Some(Mailbox {
        uid_validity,
        messages,
    })
}

fn message(response: &Response) -> Message {
    let (uid, flags) = uid_and_flags(response);
    let header = response.literals.last().cloned().unwrap_or_default();
    let header = String::from_utf8_lossy(&header).into_owned();
    let field = |name: &str| {
        header.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let name = match field("Message-ID") {
        Some(id) => id.trim_matches(['<', '>']).to_owned(),
        None => field("Subject").unwrap_or_default().to_owned(),
    };
    Message { uid, flags, name }
}
