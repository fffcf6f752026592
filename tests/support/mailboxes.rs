//! Mailboxes beside the INBOX: with names beyond ASCII, without rights, shared
//! with others.

use super::imap_client::ImapClient;

impl ImapClient {
    /// Makes a mailbox of this name, given in UTF-8.
    pub fn create(&mut self, name: &str) {
        let name = utf7(name);
        self.ok(&format!("CREATE \"{name}\""));
    }

    /// Makes a mailbox that its own user sees and may not open, on a server with
    /// access control lists (RFC 4314): Cyrus, or Dovecot with `SHARING`.
    pub fn create_locked(&mut self, name: &str, user: &str) {
        self.create(name);
        self.allow(name, user, "la");
        // In Dovecot the owner has a name of its own.
        self.command(&format!("SETACL \"{}\" owner la", utf7(name)));
    }

    /// Removes all messages from all mailboxes that are this user's own.
    pub fn empty_all(&mut self) {
        for mailbox in super::contents::mailboxes(self) {
            let shared = ["shared/", "Other Users/"]
                .iter()
                .any(|it| mailbox.starts_with(it));
            if shared {
                continue;
            }
            let opened = self.command(&format!("SELECT \"{mailbox}\""));
            let holds_mail = opened.iter().all(|it| it.text != "* 0 EXISTS");
            let opened = opened.last().unwrap().text.contains(" OK ");
            if opened && holds_mail {
                self.ok("UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
                self.ok("EXPUNGE");
            }
        }
    }

    /// Gives another user rights on a mailbox (RFC 4314 §2.1).
    pub fn allow(&mut self, name: &str, user: &str, rights: &str) {
        let name = utf7(name);
        self.ok(&format!("SETACL \"{name}\" {user} {rights}"));
    }
}

/// A name as it goes over the wire (RFC 3501 §5.1.3).
pub fn utf7(name: &str) -> String {
    use base64::Engine as _;
    use base64::alphabet::IMAP_MUTF7;
    use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

    let base64 = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);
    let mut wire = String::new();
    let mut shifted = String::new();
    let flush = |shifted: &mut String, wire: &mut String| {
        if !shifted.is_empty() {
            let units: Vec<u8> = shifted.encode_utf16().flat_map(u16::to_be_bytes).collect();
            wire.push_str(&format!("&{}-", base64.encode(units)));
            shifted.clear();
        }
    };
    for letter in name.chars() {
        if !(' '..='~').contains(&letter) {
            shifted.push(letter);
            continue;
        }
        flush(&mut shifted, &mut wire);
        match letter {
            '&' => wire.push_str("&-"),
            '"' | '\\' => wire.extend(['\\', letter]),
            _ => wire.push(letter),
        }
    }
    flush(&mut shifted, &mut wire);
    wire
}
