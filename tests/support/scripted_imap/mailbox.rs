//! Mailboxes in memory.

use std::sync::Arc;

/// A mailbox.
pub struct Mailbox {
    pub name: String,
    /// `\Trash`, where it has a special use.
    pub special_use: Option<&'static str>,
    pub uid_validity: u32,
    pub uid_next: u32,
    /// In the order of UIDs.
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Clone)]
pub struct Message {
    pub uid: u32,
    pub flags: Vec<String>,
    pub octets: Arc<[u8]>,
    /// What RFC822.SIZE says, where that is not the truth.
    pub claimed_size: Option<u64>,
}

impl Mailbox {
    pub fn new(name: &str, special_use: Option<&'static str>) -> Self {
        let name = name.to_owned();
        Self {
            name,
            special_use,
            uid_validity: 1_700_000_000,
            uid_next: 1,
            messages: Vec::new(),
        }
    }

    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || (self.name == "INBOX" && name.eq_ignore_ascii_case("INBOX"))
    }

    /// Adds a message with the next UID, which it returns.
    pub fn append(&mut self, octets: impl Into<Arc<[u8]>>) -> u32 {
        self.receive(Message {
            uid: 0,
            flags: Vec::new(),
            octets: octets.into(),
            claimed_size: None,
        })
    }

    /// The same for a message from another mailbox.
    pub fn receive(&mut self, message: Message) -> u32 {
        let uid = self.uid_next;
        self.uid_next += 1;
        self.messages.push(Message { uid, ..message });
        uid
    }

    pub fn message(&mut self, uid: u32) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.uid == uid)
    }

    /// Takes a message away.
    pub fn remove(&mut self, uid: u32) -> Option<Message> {
        let at = self
            .messages
            .iter()
            .position(|message| message.uid == uid)?;
        Some(self.messages.remove(at))
    }
}

impl Message {
    pub fn size(&self) -> u64 {
        self.claimed_size.unwrap_or(self.octets.len() as u64)
    }

    pub fn is_deleted(&self) -> bool {
        self.has_flag("\\Deleted")
    }

    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|set| set.eq_ignore_ascii_case(flag))
    }

    pub fn set_flag(&mut self, flag: &str, on: bool) {
        self.flags.retain(|set| !set.eq_ignore_ascii_case(flag));
        if on {
            self.flags.push(flag.to_owned());
        }
    }

    /// The header with the blank line behind it.
    pub fn header(&self) -> &[u8] {
        match memchr::memmem::find(&self.octets, b"\r\n\r\n") {
            Some(at) => &self.octets[..at + 4],
            None => &self.octets,
        }
    }

    /// What is behind the blank line.
    pub fn text(&self) -> &[u8] {
        &self.octets[self.header().len()..]
    }
}

/// Whether a sequence set (`1:3,7,9:*`) holds `number`, where `*` is `last`.
pub fn in_set(set: &str, number: u32, last: u32) -> bool {
    set.split(',').any(|range| {
        let value = |text: &str| {
            if text == "*" {
                Some(last)
            } else {
                text.parse().ok()
            }
        };
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        match (value(from), value(to)) {
            (Some(a), Some(b)) => (a.min(b)..=a.max(b)).contains(&number),
            _ => false,
        }
    })
}
