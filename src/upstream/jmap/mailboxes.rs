//! The mailboxes that a session deals with (RFC 8621 §2): found at login, with
//! the rights that its policy needs. What the policy cannot do here is refused
//! then, not at QUIT.

use tokio::time::timeout;

use super::api::Api;
use super::mailbox_list::{self, Mailbox};
use super::refresh::Rider;
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
    /// Emails in it, where that was asked for.
    pub total: Option<u64>,
}

/// More folders than this make no maildrop.
pub(super) const MOST_SOURCES: usize = 64;

/// Finds the folders of the policy, and where deleted messages go. Without a
/// store nothing can be kept of them here. The rider comes with the first
/// request.
pub(super) async fn find(
    api: &Api,
    policy: &Policy,
    has_store: bool,
    rider: &mut Rider<'_>,
) -> Result<Mailboxes, UpstreamError> {
    let found = async {
        let by_role = policy.folders.iter().all(FolderName::is_inbox)
            && !matches!(policy.delete, DeletePolicy::Move(_));
        if by_role {
            mailbox_list::with_roles(api, policy, rider).await
        } else {
            mailbox_list::with_names(api, policy, rider).await
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

pub(super) fn misconfigured<T>(reason: impl Into<Reason>) -> Result<T, UpstreamError> {
    Err(UpstreamError::Misconfigured(reason.into()))
}

fn no_folder(reason: &str, folder: &FolderName) -> UpstreamError {
    UpstreamError::NoFolder(Reason::quoting(reason, folder.as_str()))
}

/// Whether the policy moves messages to the Trash.
pub(super) fn needs_trash(policy: &Policy) -> bool {
    matches!(
        policy.delete,
        DeletePolicy::Trash | DeletePolicy::TrashIfThere
    ) || policy.expire_after.is_some()
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
            DeletePolicy::TrashIfThere
            | DeletePolicy::Trash
            | DeletePolicy::Expunge
            | DeletePolicy::Seen
            | DeletePolicy::Hide
            | DeletePolicy::Refuse => None,
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
            total: mailbox.total_emails,
        })
    }

    /// What was retrieved long ago goes to the Trash; it is never destroyed.
    fn check_expiry(&self, trash: Option<&Mailbox>) -> Result<(), UpstreamError> {
        if !self.has_store {
            return misconfigured("expire_after needs --state, to know what was retrieved when");
        }
        if trash.is_none() {
            return misconfigured("expire_after, but the account has no Trash");
        }
        Ok(())
    }
}
