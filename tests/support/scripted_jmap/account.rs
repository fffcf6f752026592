//! What a [`super::ScriptedJmap`] holds, and what it can do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{API, BLOB, CORE, DOWNLOAD, MAIL};

/// The inbox's id.
pub const INBOX: &str = "mb-inbox";
/// The Trash's id.
pub const TRASH: &str = "mb-trash";
/// The account that somebody else shares.
pub const SHARED: &str = "acc-shared";

/// One mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    pub id: String,
    pub role: Option<String>,
    pub name: String,
    pub parent: Option<String>,
    /// Of `myRights`, where it says any.
    pub rights: Value,
}

impl Mailbox {
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            role: None,
            name: name.to_owned(),
            parent: None,
            rights: Value::Null,
        }
    }

    pub fn with_role(mut self, role: &str) -> Self {
        self.role = Some(role.to_owned());
        self
    }

    pub fn below(mut self, parent: &str) -> Self {
        self.parent = Some(parent.to_owned());
        self
    }

    /// One that may not be used so.
    pub fn without(mut self, right: &str) -> Self {
        self.rights[right] = json!(false);
        self
    }
}

/// One Email.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub id: String,
    pub blob: String,
    pub received_at: String,
    pub mailboxes: BTreeSet<String>,
    pub keywords: BTreeSet<String>,
    pub octets: Vec<u8>,
}

impl Email {
    pub fn is_in(&self, mailbox: &str) -> bool {
        self.mailboxes.contains(mailbox)
    }
}

/// The account, and the server's limits.
#[derive(Clone, Debug)]
pub struct Account {
    pub emails: Vec<Email>,
    pub mailboxes: Vec<Mailbox>,
    /// Of the Emails.
    pub state: u64,
    pub session_state: String,
    pub username: String,
    pub read_only: bool,
    pub max_objects_in_get: usize,
    pub max_objects_in_set: usize,
    pub max_calls_in_request: usize,
    pub max_size_request: usize,
    pub max_concurrent_requests: usize,
    /// Ids in one answer to a query, whatever was asked for.
    pub query_limit: usize,
    /// Downloads of a part by HTTP.
    pub ranges: bool,
    /// `Blob/get`.
    pub blobs: bool,
    /// Downloads are sent in chunks, without a length.
    pub chunked: bool,
    /// Changes to the session resource, made last.
    pub patch: Vec<(String, Value)>,
    /// Another account that the user may use: its name, and what is in it.
    pub shared: Option<(String, Box<Account>)>,
    /// Changes in one answer.
    pub most_changes: usize,
    /// What the Emails were when a state of theirs was told.
    pub told: BTreeMap<u64, Held>,
    made: u64,
}

/// What can change of Emails, by id.
pub type Held = BTreeMap<String, (String, BTreeSet<String>, BTreeSet<String>)>;

impl Account {
    pub fn new() -> Self {
        Self {
            emails: Vec::new(),
            mailboxes: vec![
                Mailbox::new(INBOX, "Inbox").with_role("inbox"),
                Mailbox::new(TRASH, "Bin").with_role("trash"),
                Mailbox::new("mb-other", "Other"),
            ],
            state: 1,
            session_state: "session-1".to_owned(),
            username: String::new(),
            read_only: false,
            max_objects_in_get: 100,
            max_objects_in_set: 100,
            max_calls_in_request: 16,
            max_size_request: 1_000_000,
            max_concurrent_requests: 4,
            query_limit: usize::MAX,
            ranges: true,
            blobs: false,
            chunked: false,
            patch: Vec::new(),
            shared: None,
            most_changes: usize::MAX,
            told: BTreeMap::new(),
            made: 0,
        }
    }

    /// What the Emails are now.
    pub fn held(&self) -> Held {
        let held = |email: &Email| {
            let now = (
                email.blob.clone(),
                email.mailboxes.clone(),
                email.keywords.clone(),
            );
            (email.id.clone(), now)
        };
        self.emails.iter().map(held).collect()
    }

    /// The state of the Emails, which is told to the client.
    pub fn tell_state(&mut self) -> String {
        let held = self.held();
        self.told.entry(self.state).or_insert(held);
        self.state.to_string()
    }

    /// Puts a message into the inbox, a minute after the one before.
    pub fn deliver(&mut self, octets: &[u8]) -> String {
        self.deliver_to(INBOX, octets)
    }

    /// The same for any mailbox.
    pub fn deliver_to(&mut self, mailbox: &str, octets: &[u8]) -> String {
        self.made += 1;
        let number = self.made;
        let email = Email {
            id: format!("M{number}"),
            blob: format!("G{number}"),
            received_at: format!("2026-01-02T{:02}:{:02}:00Z", number / 60, number % 60),
            mailboxes: BTreeSet::from([mailbox.to_owned()]),
            keywords: BTreeSet::new(),
            octets: octets.to_vec(),
        };
        let id = email.id.clone();
        self.emails.push(email);
        self.state += 1;
        id
    }

    pub fn email(&mut self, id: &str) -> &mut Email {
        let found = self.emails.iter_mut().find(|email| email.id == id);
        found.unwrap_or_else(|| panic!("there is no Email {id}"))
    }

    /// Another client changes something.
    pub fn change(&mut self, change: impl FnOnce(&mut Vec<Email>)) {
        change(&mut self.emails);
        self.state += 1;
    }

    /// The session resource (RFC 8620 §2).
    pub fn session(&self) -> Value {
        let mut capabilities = json!({
            CORE: {
                "maxSizeUpload": 50_000_000,
                "maxConcurrentUpload": 4,
                "maxSizeRequest": self.max_size_request,
                "maxConcurrentRequests": self.max_concurrent_requests,
                "maxCallsInRequest": self.max_calls_in_request,
                "maxObjectsInGet": self.max_objects_in_get,
                "maxObjectsInSet": self.max_objects_in_set,
                "collationAlgorithms": [],
            },
            MAIL: {},
        });
        let mut of_account = json!({ MAIL: {} });
        if self.blobs {
            capabilities[BLOB] = json!({});
            of_account[BLOB] = json!({ "maxSizeBlobSet": 1, "maxDataSources": 1 });
        }
        let mut session = json!({
            "capabilities": capabilities,
            "accounts": { "acc": {
                "name": "mail", "isPersonal": true, "isReadOnly": self.read_only,
                "accountCapabilities": of_account,
            } },
            "primaryAccounts": { MAIL: "acc" },
            "username": self.username,
            "apiUrl": API,
            "downloadUrl": format!("{DOWNLOAD}{{accountId}}/{{blobId}}/{{name}}?accept={{type}}"),
            "uploadUrl": "/jmap/upload/{accountId}",
            "eventSourceUrl": "/jmap/events",
            "state": self.session_state,
        });
        if let Some((name, account)) = &self.shared {
            session["accounts"][SHARED] = json!({
                "name": name, "isPersonal": false, "isReadOnly": account.read_only,
                "accountCapabilities": { MAIL: {} },
            });
        }
        for (pointer, value) in &self.patch {
            match session.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => session[pointer.trim_start_matches('/')] = value.clone(),
            }
        }
        session
    }
}
