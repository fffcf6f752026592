//! Mailboxes as the server lists them (RFC 8621 §2): whole, or an error.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::api::Api;
use super::calls::{Calls, GetAnswer, QueryAnswer};
use super::ids::LONGEST;
use super::mailboxes::{misconfigured, needs_trash};
use super::refresh::Rider;
use crate::maildrop::{DeletePolicy, Policy};
use crate::upstream::UpstreamError;

/// More mailboxes than this are not looked through for a name.
const MOST_MAILBOXES: usize = 10_000;
/// Queries in one request.
const AT_ONCE: usize = 4;

/// What a mailbox may be used for (RFC 8621 §2).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rights {
    pub may_read_items: bool,
    pub may_add_items: bool,
    pub may_remove_items: bool,
    pub may_set_seen: bool,
    pub may_set_keywords: bool,
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
    pub my_rights: Rights,
    /// A hint, no more: what is no number is none.
    #[serde(default, deserialize_with = "number")]
    pub total_emails: Option<u64>,
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}

impl Mailbox {
    pub fn has_role(&self, role: &str) -> bool {
        self.role.as_deref() == Some(role)
    }
}

/// The mailboxes with the roles that the policy needs. A list of all mailboxes
/// could be cut in silence; this cannot. The rider comes with the first request.
pub(super) async fn with_roles(
    api: &Api,
    policy: &Policy,
    rider: &mut Rider<'_>,
) -> Result<Vec<Mailbox>, UpstreamError> {
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
        let place = calls.len();
        let calls = rider.board(calls, api).for_account(api.account());
        let answers = api.call(&calls).await?;
        if calls.len() > place {
            rider.alight(&answers, place);
        }
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
    let properties = ["id", "role", "myRights", "totalEmails"];
    let of_query = json!({
        "resultOf": (2 * place).to_string(), "name": "Mailbox/query", "path": "/ids",
    });
    calls
        .push("Mailbox/query", json!({ "filter": { "role": role } }))
        .push(
            "Mailbox/get",
            json!({ "#ids": of_query, "properties": properties }),
        )
}

/// Every mailbox that has a role or may be on the way to a folder of the
/// policy. What a filter by name finds differs from server to server; equality
/// does not.
/// The rider comes with the first request.
pub(super) async fn with_names(
    api: &Api,
    policy: &Policy,
    rider: &mut Rider<'_>,
) -> Result<Vec<Mailbox>, UpstreamError> {
    const TRIES: usize = 3;
    let moved_to = match &policy.delete {
        DeletePolicy::Move(folder) => Some(folder),
        DeletePolicy::TrashIfThere
        | DeletePolicy::Trash
        | DeletePolicy::Archive
        | DeletePolicy::Expunge
        | DeletePolicy::Seen
        | DeletePolicy::Hide
        | DeletePolicy::Refuse => None,
    };
    let wanted = |mailbox: &Mailbox| {
        let mut folders = policy.folders.iter().chain(moved_to);
        mailbox.role.is_some()
            || folders
                .any(|folder| !mailbox.name.is_empty() && folder.as_str().contains(&*mailbox.name))
    };
    for _ in 0..TRIES {
        if let Some(found) = all(api, wanted, rider).await? {
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
    rider: &mut Rider<'_>,
) -> Result<Option<Vec<Mailbox>>, UpstreamError> {
    const PROPERTIES: [&str; 6] = ["id", "name", "parentId", "role", "myRights", "totalEmails"];
    let mut found = Vec::new();
    let mut listed: HashSet<Box<str>> = HashSet::new();
    let mut state: Option<String> = None;
    loop {
        let of_query = json!({ "resultOf": "0", "name": "Mailbox/query", "path": "/ids" });
        let limit = api.limits().objects_in_get;
        let query = json!({ "position": listed.len(), "limit": limit, "calculateTotal": true });
        let calls = Calls::default().push("Mailbox/query", query).push(
            "Mailbox/get",
            json!({ "#ids": of_query, "properties": PROPERTIES }),
        );
        let place = calls.len();
        let calls = rider.board(calls, api).for_account(api.account());
        let answers = api.call(&calls).await?;
        if calls.len() > place {
            rider.alight(&answers, place);
        }
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
