//! The mailboxes that a session deals with (RFC 8621 §2): found at login, with
//! the rights that its policy needs. What the policy cannot do here is refused
//! then, not at QUIT.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use super::api::Api;
use super::calls::{Calls, GetAnswer, QueryAnswer};
use super::ids::LONGEST;
use super::tree::Tree;
use crate::maildrop::{DeletePolicy, FolderName, Policy, SeenPolicy};
use crate::upstream::{Reason, UpstreamError};

/// The folders of a maildrop, and where its messages may go, by their ids.
#[derive(Clone, Debug)]
pub(super) struct Mailboxes {
    /// The folders in the order of the policy, each of them once.
    pub sources: Vec<Source>,
    /// The Trash, where the policy may need it and there is one.
    pub trash: Option<String>,
    /// Where the policy moves deleted messages, if not to the Trash.
    pub target: Option<String>,
}

/// A folder of the maildrop.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// As the policy names it.
    pub folder: FolderName,
    /// The mailbox's id.
    pub id: String,
    /// The same name for the same mailbox, however it was asked for: among
    /// those of its owner.
    pub name: String,
    /// Among all that a user may see.
    pub kept_as: String,
    /// Keywords may be set, and are nobody else's who logs in by POP3.
    pub has_keywords: bool,
}

/// More folders than this make no maildrop.
pub(super) const MOST_SOURCES: usize = 64;
/// More mailboxes than this are not looked through for a name.
const MOST_MAILBOXES: usize = 10_000;
/// Queries in one request.
const AT_ONCE: usize = 4;

/// What a mailbox may be used for (RFC 8621 §2).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rights {
    may_read_items: bool,
    may_add_items: bool,
    may_remove_items: bool,
    may_set_seen: bool,
    may_set_keywords: bool,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            may_read_items: true,
            may_add_items: true,
            may_remove_items: true,
            may_set_seen: true,
            may_set_keywords: true,
        }
    }
}

/// A mailbox as the server lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mailbox {
    pub id: Box<str>,
    pub role: Option<Box<str>>,
    #[serde(default)]
    pub name: Box<str>,
    #[serde(default)]
    pub parent_id: Option<Box<str>>,
    #[serde(default)]
    my_rights: Rights,
}

impl Mailbox {
    pub fn has_role(&self, role: &str) -> bool {
        self.role.as_deref() == Some(role)
    }
}

/// Finds the folders of the policy, and where deleted messages go. Without a
/// store nothing can be kept of them here.
pub(super) async fn find(
    api: &Api,
    policy: &Policy,
    has_store: bool,
) -> Result<Mailboxes, UpstreamError> {
    let found = async {
        let by_role = policy.folders.iter().all(FolderName::is_inbox)
            && !matches!(policy.delete, DeletePolicy::Move(_));
        if by_role {
            with_roles(api, policy).await
        } else {
            with_names(api, policy).await
        }
    };
    let found = match timeout(api.http.command_timeout(), found).await {
        Ok(found) => Tree::new(found?),
        Err(_) => return Err(UpstreamError::temporary("no list of mailboxes in time")),
    };
    Choice {
        api,
        policy,
        has_store,
        found: &found,
    }
    .make()
}

fn misconfigured<T>(reason: impl Into<Reason>) -> Result<T, UpstreamError> {
    Err(UpstreamError::Misconfigured(reason.into()))
}

fn no_folder(reason: &str, folder: &FolderName) -> UpstreamError {
    UpstreamError::NoFolder(Reason::quoting(reason, folder.as_str()))
}

/// Whether the policy moves messages to the Trash.
fn needs_trash(policy: &Policy) -> bool {
    matches!(
        policy.delete,
        DeletePolicy::Trash | DeletePolicy::TrashIfThere
    ) || policy.expire_after.is_some()
}

/// The mailboxes with the roles that the policy needs. A list of all mailboxes
/// could be cut in silence; this cannot.
async fn with_roles(api: &Api, policy: &Policy) -> Result<Vec<Mailbox>, UpstreamError> {
    let mut roles = vec!["inbox"];
    if needs_trash(policy) {
        roles.push("trash");
    }
    if policy.delete == DeletePolicy::Archive {
        roles.push("archive");
    }
    // Where the server takes enough calls at once, all of it is one request.
    let at_once = (api.limits().calls_in_request / 2).clamp(1, AT_ONCE);
    let mut found: Vec<Mailbox> = Vec::new();
    for roles in roles.chunks(at_once) {
        let calls = roles.iter().enumerate().fold(Calls::default(), with_role);
        let calls = calls.for_account(api.account());
        let answers = api.call(&calls).await?;
        for place in 0..roles.len() {
            // A failed query shows as what it is, not as a bad reference to it.
            answers.get::<IgnoredAny>(2 * place)?;
            found.extend(answers.get::<GetAnswer<Mailbox>>(2 * place + 1)?.list);
        }
    }
    check_ids(&found)?;
    Ok(found)
}

/// Adds the calls that find the mailbox with a role.
fn with_role(calls: Calls, (place, role): (usize, &&str)) -> Calls {
    let of_query = json!({
        "resultOf": (2 * place).to_string(), "name": "Mailbox/query", "path": "/ids",
    });
    calls
        .push("Mailbox/query", json!({ "filter": { "role": role } }))
        .push(
            "Mailbox/get",
            json!({ "#ids": of_query, "properties": ["id", "role", "myRights"] }),
        )
}

/// Every mailbox that has a role or may be on the way to a folder of the
/// policy. What a filter by name finds differs from server to server; equality
/// does not.
async fn with_names(api: &Api, policy: &Policy) -> Result<Vec<Mailbox>, UpstreamError> {
    const TRIES: usize = 3;
    let moved_to = match &policy.delete {
        DeletePolicy::Move(folder) => Some(folder),
        _ => None,
    };
    let wanted = |mailbox: &Mailbox| {
        let mut folders = policy.folders.iter().chain(moved_to);
        mailbox.role.is_some()
            || folders
                .any(|folder| !mailbox.name.is_empty() && folder.as_str().contains(&*mailbox.name))
    };
    for _ in 0..TRIES {
        if let Some(found) = all(api, wanted).await? {
            return Ok(found);
        }
    }
    let reason = "the mailboxes changed while they were listed";
    Err(UpstreamError::temporary(reason))
}

/// All mailboxes, as far as they are wanted. None where they changed meanwhile.
async fn all(
    api: &Api,
    wanted: impl Fn(&Mailbox) -> bool,
) -> Result<Option<Vec<Mailbox>>, UpstreamError> {
    let mut found = Vec::new();
    let mut listed: HashSet<Box<str>> = HashSet::new();
    let mut state: Option<String> = None;
    loop {
        let of_query = json!({ "resultOf": "0", "name": "Mailbox/query", "path": "/ids" });
        let limit = api.limits().objects_in_get;
        let query = json!({ "position": listed.len(), "limit": limit, "calculateTotal": true });
        let properties = ["id", "name", "parentId", "role", "myRights"];
        let calls = Calls::default()
            .push("Mailbox/query", query)
            .push(
                "Mailbox/get",
                json!({ "#ids": of_query, "properties": properties }),
            )
            .for_account(api.account());
        let answers = api.call(&calls).await?;
        let page: QueryAnswer = answers.get(0)?;
        if state.get_or_insert_with(|| page.query_state.clone()) != &page.query_state {
            return Ok(None);
        }
        let before = listed.len() as u64;
        if page.position.is_some_and(|position| position != before) && !page.ids.is_empty() {
            return Err(UpstreamError::protocol("another page than was asked for"));
        }
        if page
            .total
            .is_some_and(|total| total > MOST_MAILBOXES as u64)
            || listed.len() + page.ids.len() > MOST_MAILBOXES
        {
            return misconfigured("the account has too many mailboxes to find one by its name");
        }
        let got: GetAnswer<Mailbox> = answers.get(1)?;
        check_ids(&got.list)?;
        let mut due: HashSet<&str> = page.ids.iter().collect();
        let is_whole = due.len() == page.ids.len()
            && got.list.iter().all(|mailbox| due.remove(&*mailbox.id))
            && page.ids.iter().all(|id| listed.insert(id.into()));
        if !is_whole {
            let reason = "a mailbox that was not asked for, or twice";
            return Err(UpstreamError::protocol(reason));
        }
        if !due.is_empty() {
            // It went between query and get, or the listing is not whole.
            return Ok(None);
        }
        found.extend(got.list.into_iter().filter(&wanted));
        let count = listed.len() as u64;
        match page.total {
            Some(total) if total <= count => return Ok(Some(found)),
            Some(_) if page.ids.is_empty() => {
                let reason = "the list of mailboxes is not whole";
                return Err(UpstreamError::protocol(reason));
            }
            None if page.ids.is_empty() => return Ok(Some(found)),
            Some(_) | None => {}
        }
    }
}

fn check_ids(mailboxes: &[Mailbox]) -> Result<(), UpstreamError> {
    let fits = |id: &str| (1..=LONGEST).contains(&id.len());
    if mailboxes.iter().all(|it| fits(&it.id)) {
        return Ok(());
    }
    Err(UpstreamError::protocol("a mailbox without an id"))
}

/// The choice among what was found.
struct Choice<'a> {
    api: &'a Api,
    policy: &'a Policy,
    has_store: bool,
    found: &'a Tree,
}

impl Choice<'_> {
    fn make(&self) -> Result<Mailboxes, UpstreamError> {
        let mut sources: Vec<Source> = Vec::new();
        for folder in &self.policy.folders {
            let mailbox = match self.found.find(folder) {
                Some(mailbox) => mailbox,
                None if folder.is_inbox() => return misconfigured("the account has no inbox"),
                None => return Err(no_folder("there is no folder", folder)),
            };
            if sources.iter().all(|it| *it.id != *mailbox.id) {
                sources.push(self.source(folder, mailbox)?);
            }
        }
        if sources.len() > MOST_SOURCES {
            return misconfigured("too many folders for one maildrop");
        }
        let with_role = |role: &str| self.found.with_role(role);
        let trash = with_role("trash").filter(|_| needs_trash(self.policy));
        let target = match &self.policy.delete {
            DeletePolicy::Trash if trash.is_none() => {
                return misconfigured("delete = \"trash\", but the account has no Trash");
            }
            DeletePolicy::Archive => match with_role("archive") {
                None => {
                    return misconfigured("delete = \"archive\", but the account has no Archive");
                }
                archive => archive,
            },
            DeletePolicy::Move(folder) => match self.found.find(folder) {
                None => {
                    let reason = "there is no folder to move deleted messages to";
                    return misconfigured(Reason::quoting(reason, folder.as_str()));
                }
                found => found,
            },
            _ => None,
        };
        let is_source = |mailbox: &Mailbox| sources.iter().any(|it| *it.id == *mailbox.id);
        let insists = self.policy.delete == DeletePolicy::Trash;
        if target.or(trash.filter(|_| insists)).is_some_and(is_source) {
            return misconfigured(
                "the delete policy would move messages to where they are already",
            );
        }
        if let Some(closed) = target
            .into_iter()
            .chain(trash)
            .find(|it| !it.my_rights.may_add_items)
        {
            let name = if closed.has_role("trash") {
                "the Trash"
            } else {
                &*closed.name
            };
            return misconfigured(Reason::quoting("nothing may be added to", name));
        }
        if self.policy.expire_after.is_some() {
            self.check_expiry(trash)?;
        }
        let id = |mailbox: &Mailbox| mailbox.id.to_string();
        Ok(Mailboxes {
            sources,
            trash: trash.map(id),
            target: target.map(id),
        })
    }

    /// A folder whose messages are shown, where it gives what the policy needs.
    fn source(&self, folder: &FolderName, mailbox: &Mailbox) -> Result<Source, UpstreamError> {
        let (policy, rights) = (self.policy, mailbox.my_rights);
        let is_inbox = mailbox.has_role("inbox");
        let refuse = |what: &str| {
            let name = if is_inbox { "inbox" } else { folder.as_str() };
            misconfigured(Reason::quoting(what, name))
        };
        if !rights.may_read_items {
            return Err(no_folder("this folder may not be read", folder));
        }
        let removes = match policy.delete {
            DeletePolicy::TrashIfThere
            | DeletePolicy::Trash
            | DeletePolicy::Archive
            | DeletePolicy::Move(_)
            | DeletePolicy::Expunge => true,
            DeletePolicy::Seen | DeletePolicy::Hide | DeletePolicy::Refuse => false,
        };
        if (removes || policy.expire_after.is_some()) && !rights.may_remove_items {
            return refuse("nothing may be removed from this folder, and the policy needs to");
        }
        let sets_seen = policy.delete == DeletePolicy::Seen || policy.seen != SeenPolicy::Never;
        if sets_seen && !rights.may_set_seen {
            return refuse("nothing may be marked as read in this folder, and the policy needs to");
        }
        // In an account that several users share, each would hide for all.
        let has_keywords =
            rights.may_set_keywords && policy.shared.is_none() && !self.api.resource.read_only;
        if policy.delete == DeletePolicy::Hide && !has_keywords && !self.has_store {
            return refuse("hide needs keywords upstream or --state, and there are none in");
        }
        let by_id = format!("jmap:{}:{}", self.api.account(), mailbox.id);
        let name = if is_inbox {
            FolderName::inbox().as_str().to_owned()
        } else {
            by_id.clone()
        };
        Ok(Source {
            folder: folder.clone(),
            id: mailbox.id.to_string(),
            kept_as: if policy.shared.is_some() {
                by_id
            } else {
                name.clone()
            },
            name,
            has_keywords,
        })
    }

    /// What was retrieved long ago goes to the Trash. It is never destroyed,
    /// except where the delete policy would do so too.
    fn check_expiry(&self, trash: Option<&Mailbox>) -> Result<(), UpstreamError> {
        if !self.has_store {
            return misconfigured("expire_after needs --state, to know what was retrieved when");
        }
        let may_destroy = matches!(
            self.policy.delete,
            DeletePolicy::TrashIfThere | DeletePolicy::Expunge
        );
        if trash.is_none() && !may_destroy {
            return misconfigured("expire_after, but the account has no Trash");
        }
        Ok(())
    }
}
