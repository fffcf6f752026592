//! SEARCH keys and FETCH items (RFC 3501 §6.4.4, §6.4.5).

use super::mailbox::{Mailbox, Message, in_set};
use super::wire::Command;

/// Keys ALL, DELETED, UNDELETED, NOT DELETED, KEYWORD flag, UID set; joined by
/// AND.
pub(super) fn search(mailbox: &Mailbox, command: &Command, extended: bool) -> String {
    let mut keys = command.arguments.as_str();
    let wants_esearch = keys.to_ascii_uppercase().starts_with("RETURN");
    if wants_esearch {
        if !extended {
            return command.bad("ESEARCH was not announced");
        }
        keys = keys
            .split_once(')')
            .map_or("", |(_, keys)| keys.trim_start());
    }
    let last = mailbox.messages.last().map_or(0, |message| message.uid);
    let upper = keys.to_ascii_uppercase();
    let words: Vec<&str> = upper.split_whitespace().collect();
    let fits = |message: &&Message| {
        let mut at = 0;
        let mut fits = true;
        while at < words.len() {
            let (used, yes) = match words[at..] {
                ["NOT", "DELETED", ..] => (2, !message.is_deleted()),
                ["KEYWORD", flag, ..] => (2, message.has_flag(flag)),
                ["UID", set, ..] => (2, in_set(set, message.uid, last)),
                ["DELETED", ..] => (1, message.is_deleted()),
                ["UNDELETED", ..] => (1, !message.is_deleted()),
                _ => (1, words[at] == "ALL"),
            };
            fits &= yes;
            at += used;
        }
        fits
    };
    let found: Vec<String> = mailbox
        .messages
        .iter()
        .filter(fits)
        .map(|message| message.uid.to_string())
        .collect();
    if wants_esearch {
        let all = if found.is_empty() {
            String::new()
        } else {
            format!(" ALL {}", found.join(","))
        };
        format!(
            "* ESEARCH (TAG \"{}\") UID{all}\r\n{}",
            command.tag,
            command.ok("done")
        )
    } else {
        let space = if found.is_empty() { "" } else { " " };
        format!(
            "* SEARCH{space}{}\r\n{}",
            found.join(" "),
            command.ok("done")
        )
    }
}

/// Appends one FETCH item. False: the item is not known.
pub(super) fn fetch_item(
    reply: &mut Vec<u8>,
    message: &mut Message,
    item: &str,
    writable: bool,
) -> bool {
    let upper = item.to_ascii_uppercase();
    match upper.as_str() {
        "UID" => reply.extend_from_slice(format!("UID {}", message.uid).as_bytes()),
        "RFC822.SIZE" => {
            reply.extend_from_slice(format!("RFC822.SIZE {}", message.size()).as_bytes());
        }
        "FLAGS" => {
            reply.extend_from_slice(format!("FLAGS ({})", message.flags.join(" ")).as_bytes());
        }
        "INTERNALDATE" => {
            reply.extend_from_slice(b"INTERNALDATE \"01-Jan-2024 00:00:00 +0000\"");
        }
        _ => {
            let Some((name, rest)) = upper.split_once('[') else {
                return false;
            };
            let Some((section, partial)) = rest.split_once(']') else {
                return false;
            };
            if name == "BODY" && writable {
                message.set_flag("\\Seen", true);
            } else if name != "BODY.PEEK" {
                return false;
            }
            let octets = match section {
                "" => &message.octets[..],
                "HEADER" => message.header(),
                "TEXT" => message.text(),
                _ => return false,
            };
            // `<origin.count>` (RFC 3501 §6.4.5)
            let range = partial.trim_matches(['<', '>']).split_once('.');
            let numbers = range.and_then(|(origin, count)| {
                Some((origin.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
            });
            let (octets, origin) = match numbers {
                Some((origin, count)) => {
                    let rest = &octets[origin.min(octets.len())..];
                    (&rest[..count.min(rest.len())], format!("<{origin}>"))
                }
                None => (octets, String::new()),
            };
            let head = format!("BODY[{section}]{origin} {{{}}}\r\n", octets.len());
            reply.extend_from_slice(head.as_bytes());
            reply.extend_from_slice(octets);
        }
    }
    true
}
