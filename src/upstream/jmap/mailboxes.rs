//! The mailboxes that a session deals with (RFC 8621 §2).

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::api::Api;
use super::calls::{Calls, GetAnswer};
use crate::maildrop::{DeletePolicy, Policy};
use crate::upstream::UpstreamError;

/// The inbox, and the Trash where there is one, by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mailboxes {
    pub inbox: String,
    pub trash: Option<String>,
}

/// What a mailbox may be used for (RFC 8621 §2).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rights {
    may_read_items: bool,
    may_add_items: bool,
    may_remove_items: bool,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            may_read_items: true,
            may_add_items: true,
            may_remove_items: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mailbox {
    id: String,
    role: Option<String>,
    #[serde(default)]
    my_rights: Rights,
}

/// Finds the inbox, and the Trash where the policy may need it. What the policy
/// cannot do here is refused now, at login, not at QUIT.
pub(super) async fn find(api: &Api, policy: &Policy) -> Result<Mailboxes, UpstreamError> {
    let roles = ["inbox", "trash"];
    // Where the server takes four calls at once, all of it is one request.
    let at_once = if api.limits().calls_in_request >= 4 {
        2
    } else {
        1
    };
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
    let misconfigured = |reason: &str| Err(UpstreamError::Misconfigured(reason.into()));
    let with_role = |role: &str| found.iter().find(|it| it.role.as_deref() == Some(role));
    let Some(inbox) = with_role("inbox") else {
        return misconfigured("the account has no inbox");
    };
    let trash = with_role("trash");
    if !inbox.my_rights.may_read_items {
        return misconfigured("the inbox may not be read");
    }
    if policy.writes() && !inbox.my_rights.may_remove_items {
        return misconfigured("the inbox may not be changed, and the delete policy needs to");
    }
    match (&policy.delete, trash) {
        (DeletePolicy::Trash, None) => {
            return misconfigured("delete = \"trash\", but the account has no Trash");
        }
        (DeletePolicy::Trash | DeletePolicy::TrashIfThere, Some(trash))
            if !trash.my_rights.may_add_items =>
        {
            return misconfigured("nothing may be added to the Trash");
        }
        _ => {}
    }
    Ok(Mailboxes {
        inbox: inbox.id.clone(),
        trash: trash.map(|it| it.id.clone()),
    })
}

/// Adds the calls that find the mailbox with a role. A list of all mailboxes
/// could be cut in silence; this cannot.
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
