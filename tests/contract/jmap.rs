//! JMAP servers as subjects of the contract. Their other clients speak IMAP.

use std::sync::atomic::{AtomicUsize, Ordering};

use popgate::maildrop::DeletePolicy;

use crate::imap::{self, Imap, Protection};
use crate::recorder::Recorder;
use crate::subject::{Change, Changed, Held, Other, Service, Subject};

/// Cyrus, with a recorder in front of its HTTP.
pub struct Jmap {
    cyrus: Imap,
    recorder: Recorder,
    protection: Protection,
    delivered: AtomicUsize,
}

impl Jmap {
    pub fn cyrus(protection: Protection) -> Option<Self> {
        let cyrus = Imap::cyrus(Protection::None)?;
        let port = match protection {
            Protection::None => cyrus.server().http_port(),
            _ => cyrus.server().https_port(),
        };
        Some(Self {
            cyrus,
            recorder: Recorder::start(port),
            protection,
            delivered: AtomicUsize::new(0),
        })
    }

    /// In the order of arrival: JMAP's order, which UIDs need not follow where
    /// several messages were moved at once.
    fn held(&self, mailbox: &str, mut held: Vec<Held>) -> Vec<Held> {
        if held.is_empty() {
            return held;
        }
        let mut client = self.cyrus.client();
        client.ok(&format!("EXAMINE {mailbox}"));
        let arrived: Vec<(String, String)> = client
            .ok("UID FETCH 1:* (UID INTERNALDATE)")
            .iter()
            .filter_map(|response| {
                let (_, uid) = response.text.split_once("UID ")?;
                let (_, date) = response.text.split_once("INTERNALDATE \"")?;
                let uid = uid.split([' ', ')']).next()?;
                let date = date.split('"').next()?;
                // New mail is not of January.
                let date = date.replace("-Jan-", "-00-");
                Some((uid.to_owned(), date))
            })
            .collect();
        let date = |held: &Held| {
            let found = arrived.iter().find(|(uid, _)| *uid == held.id);
            found.map(|(_, date)| (!date.contains("-00-"), date.clone()))
        };
        held.sort_by_cached_key(date);
        held
    }
}

impl Subject for Jmap {
    fn upstream(&self, delete: &DeletePolicy) -> Service {
        let (scheme, ca_file) = match self.protection {
            Protection::None => ("http", None),
            _ => ("https", Some(self.cyrus.server().ca_file())),
        };
        let port = self.recorder.port();
        let url = format!("{scheme}://localhost:{port}/.well-known/jmap");
        imap::upstream(&url, ca_file, delete)
    }

    fn account(&self) -> (String, String) {
        self.cyrus.account()
    }

    fn change_password(&self, password: &str) -> Changed {
        self.cyrus.change_password(password)
    }

    fn clear(&self) {
        self.cyrus.clear();
        self.delivered.store(0, Ordering::SeqCst);
    }

    /// A second apart: what arrives within one second has no order in JMAP.
    fn deliver(&self, messages: &[Vec<u8>]) {
        let mut client = self.cyrus.client();
        for message in messages {
            let number = self.delivered.fetch_add(1, Ordering::SeqCst);
            let (hour, minute, second) = (number / 3600, number / 60 % 60, number % 60);
            let time = format!("01-Jan-2026 {hour:02}:{minute:02}:{second:02} +0000");
            client.append_at("INBOX", &time, message);
        }
    }

    fn inbox(&self) -> Vec<Held> {
        self.held("INBOX", self.cyrus.inbox())
    }

    fn trash(&self) -> Vec<Held> {
        self.held("Trash", self.cyrus.trash())
    }

    fn other_client(&self, change: Change, ids: &[&str]) {
        self.cyrus.other_client(change, ids);
    }

    fn other_session(&self) -> Other {
        self.cyrus.other_session()
    }

    fn can_mark_deleted(&self) -> bool {
        self.cyrus.can_mark_deleted()
    }

    fn policies(&self) -> &[DeletePolicy] {
        self.cyrus.policies()
    }

    fn has_trash(&self) -> bool {
        self.cyrus.has_trash()
    }

    fn takes_nul(&self) -> bool {
        self.cyrus.takes_nul()
    }

    /// Blobs outlive their messages: in Cyrus until they are cleaned up.
    fn keeps_what_was_removed(&self) -> bool {
        true
    }

    /// Cyrus 3.6 has neither ranges nor `Blob/get`.
    fn sends_parts(&self) -> bool {
        false
    }

    fn received(&self) -> u64 {
        self.recorder.received()
    }
}
