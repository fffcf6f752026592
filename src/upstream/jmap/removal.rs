//! The update at QUIT over JMAP (RFC 8621 §4.6): exactly the marked messages
//! are changed, and the answer says what is true afterwards.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::calls::{Calls, GetAnswer, SetAnswer};
use super::emails::Emails;
use super::ids::{self, Ids, batches};
use super::keywords::{Keyword, Keywords};
use super::listing::{self, Wanted};
use super::mailboxes::Source;
use crate::maildrop::MessageIndex;
use crate::upstream::UpstreamError;

/// A message that is to leave.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    pub index: MessageIndex,
    pub id: Box<str>,
    pub blob: Box<str>,
    pub received_at: Box<str>,
    /// The folders that it was listed from: it is to leave these, and no others.
    pub folders: Vec<u8>,
}

/// How a message leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaving<'a> {
    /// Out of its folders, and into the Trash where it lies nowhere else. What
    /// was listed from the Trash itself is expunged.
    Trash(&'a str),
    /// Out of its folders and into this mailbox.
    Into(&'a str),
    /// Out of its folders, and destroyed where it lies nowhere else.
    Expunge,
    /// It stays where it is, with this keyword.
    Marked(Keyword),
}

impl<'a> Leaving<'a> {
    fn target(self) -> Option<&'a str> {
        match self {
            Self::Trash(mailbox) | Self::Into(mailbox) => Some(mailbox),
            Self::Expunge | Self::Marked(_) => None,
        }
    }
}

/// Tries at a set whose Emails others change meanwhile.
const TRIES: usize = 5;
/// Requests that got no answer, before what was seen last is the answer.
const MOST_FAILURES: usize = 2;

/// What carries an update out.
pub(super) struct Removal<'a> {
    pub api: &'a Api,
    pub sources: &'a [Source],
    pub leaving: Leaving<'a>,
    /// All Emails that the session has listed: what is none of these was not
    /// seen by the client.
    pub known: &'a Emails,
    pub most_messages: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    id: Box<str>,
    blob_id: Box<str>,
    #[serde(deserialize_with = "ids::set")]
    mailbox_ids: Ids,
    /// Where they were asked for.
    #[serde(default)]
    keywords: Keywords,
}

/// The mailbox that messages move to.
#[derive(Debug, Deserialize)]
struct Target {
    id: Box<str>,
}

impl Placed {
    fn is_in(&self, mailbox: &str) -> bool {
        self.mailbox_ids.iter().any(|it| it == mailbox)
    }
}

/// Messages as they are now, and the state that says so.
struct Seen {
    state: String,
    there: HashMap<Box<str>, Placed>,
}

impl Removal<'_> {
    /// Removes the messages and returns those that are still there, or not
    /// known to be gone. An error means that none is known to be gone.
    pub async fn run(&self, marked: Vec<Marked>) -> Result<Vec<Marked>, UpstreamError> {
        let all = marked.len();
        let mut left = Vec::new();
        let mut failure = None;
        let sizes: Vec<usize> = self.batches(&marked);
        let mut rest = marked.into_iter();
        for size in sizes {
            let mut batch: Vec<Marked> = rest.by_ref().take(size).collect();
            if failure.is_none() {
                failure = self.remove(&mut batch).await.err();
            }
            left.extend(batch);
        }
        match failure {
            Some(error) if left.len() == all => Err(error),
            Some(error) => {
                tracing::warn!(%error, left = left.len(), "the update broke off");
                Ok(left)
            }
            None => Ok(left),
        }
    }

    /// The ids of the mailboxes that a message was listed from.
    fn mailboxes(&self, marked: &Marked) -> impl Iterator<Item = &str> {
        let sources = marked
            .folders
            .iter()
            .filter_map(|folder| self.sources.get(usize::from(*folder)));
        sources.map(|source| source.id.as_str())
    }

    /// Messages in one request, for the get before and for the set.
    fn batches(&self, marked: &[Marked]) -> Vec<usize> {
        let limits = self.api.limits();
        let target = self.leaving.target().unwrap_or_default();
        let named = |marked| self.mailboxes(marked).map(|id| 24 + 2 * id.len()).sum();
        let named: usize = marked.iter().map(named).max().unwrap_or_default();
        let patch = 40 + named + 2 * target.len();
        let ids: Vec<&str> = marked.iter().map(|marked| &*marked.id).collect();
        let most = limits.objects_in_get.min(limits.objects_in_set);
        let batches = batches(&ids, most, limits.request - 1024, patch);
        batches.iter().map(Vec::len).collect()
    }

    /// Looks, asks, looks again, until nothing is left of the batch or nothing
    /// more is to be hoped for. What stays in `left` is still there; after an
    /// error it may be.
    async fn remove(&self, left: &mut Vec<Marked>) -> Result<(), UpstreamError> {
        let mut destroyed = HashSet::new();
        let mut unanswered = None;
        let (mut asked, mut failures, mut refused) = (0, 0, false);
        loop {
            // What is seen now is the truth about what was asked for before.
            let seen = match self.look(left, &destroyed).await {
                Ok(seen) => seen,
                Err(error) => return Err(unanswered.unwrap_or(error)),
            };
            if left.is_empty() || refused || asked == TRIES || failures == MOST_FAILURES {
                return Ok(());
            }
            asked += 1;
            match self.ask(left, &seen, &mut destroyed).await {
                Ok(Said::Done | Said::StateMismatch) => {}
                Ok(Said::Refused) => refused = true,
                Err(error) => {
                    tracing::warn!(%error, "a removal got no answer");
                    failures += 1;
                    unanswered = Some(error);
                }
            }
        }
    }

    /// How the messages are now. Those that are gone leave `left`.
    async fn look(
        &self,
        left: &mut Vec<Marked>,
        destroyed: &HashSet<Box<str>>,
    ) -> Result<Seen, UpstreamError> {
        let mut seen = self.get(left).await?;
        let is_lost =
            |marked: &Marked| !destroyed.contains(&marked.id) && seen.of(marked).is_none();
        let lost: HashSet<Box<str>> = left
            .iter()
            .filter(|marked| is_lost(marked))
            .map(|marked| marked.id.clone())
            .collect();
        if !lost.is_empty() && self.follow(left, &lost).await? {
            seen = self.get(left).await?;
        }
        left.retain(|marked| {
            let email = seen.of(marked);
            email.is_some_and(|email| !self.is_gone(marked, email))
        });
        Ok(seen)
    }

    /// Whether nothing is to be done about a message any more: it lies in none
    /// of the folders that it was listed from, or has the keyword.
    fn is_gone(&self, marked: &Marked, email: &Placed) -> bool {
        let is_marked = match self.leaving {
            Leaving::Marked(keyword) => email.keywords.has(keyword),
            Leaving::Trash(_) | Leaving::Into(_) | Leaving::Expunge => false,
        };
        is_marked || !self.mailboxes(marked).any(|mailbox| email.is_in(mailbox))
    }

    /// An error where the mailbox that messages move to is no longer there:
    /// Cyrus 3.6 moves them to a mailbox that was deleted, where nobody finds
    /// them again.
    async fn get(&self, left: &[Marked]) -> Result<Seen, UpstreamError> {
        let ids: Vec<&str> = left.iter().map(|marked| &*marked.id).collect();
        let mut properties = vec!["id", "blobId", "mailboxIds"];
        if matches!(self.leaving, Leaving::Marked(_)) {
            properties.push("keywords");
        }
        let arguments = json!({ "ids": ids, "properties": properties });
        let mut calls = Calls::default().push("Email/get", arguments);
        if let Some(target) = self.leaving.target() {
            let arguments = json!({ "ids": [target], "properties": ["id"] });
            calls = calls.push("Mailbox/get", arguments);
        }
        let calls = calls.for_account(self.api.account());
        let answers = self.api.call(&calls).await?;
        let answer: GetAnswer<Placed> = answers.get(0)?;
        if let Some(target) = self.leaving.target() {
            let targets: GetAnswer<Target> = answers.get(1)?;
            if targets.list.iter().all(|it| *it.id != *target) {
                let reason = "the folder that messages were to be moved to is gone";
                return Err(UpstreamError::temporary(reason));
            }
        }
        let listed = answer.list.iter().map(|email| &*email.id);
        let named: HashSet<&str> = listed.chain(answer.not_found.iter()).collect();
        if ids.iter().any(|id| !named.contains(id)) {
            let reason = "an Email was asked for and not answered";
            return Err(UpstreamError::protocol(reason));
        }
        let there = answer.list.into_iter();
        Ok(Seen {
            state: answer.state,
            there: there.map(|email| (email.id.clone(), email)).collect(),
        })
    }

    /// Some servers replace the id of an unchanged Email, when threads merge
    /// for example. Its folders are listed again: an Email with the same octets
    /// and the same time of arrival that the session did not know is the one.
    /// Returns whether there was any.
    async fn follow(
        &self,
        left: &mut [Marked],
        lost: &HashSet<Box<str>>,
    ) -> Result<bool, UpstreamError> {
        let mut taken: HashSet<Box<str>> = left.iter().map(|marked| marked.id.clone()).collect();
        let known: HashSet<&str> = self.known.iter().map(|email| email.id).collect();
        let mut lost = lost.clone();
        let mut found = false;
        for (folder, source) in (0..).zip(self.sources) {
            let is_lost = |marked: &Marked, lost: &HashSet<Box<str>>| {
                lost.contains(&marked.id) && marked.folders.contains(&folder)
            };
            if !left.iter().any(|marked| is_lost(marked, &lost)) {
                continue;
            }
            let wanted = Wanted {
                mailbox: &source.id,
                most: self.most_messages,
                expected: None,
                keywords: false,
            };
            let (listed, _) = listing::list(self.api, wanted).await?;
            for marked in left.iter_mut() {
                if !is_lost(marked, &lost) {
                    continue;
                }
                let heir = listed.iter().find(|email| {
                    *email.blob_id == *marked.blob
                        && *email.received_at == *marked.received_at
                        && !known.contains(email.id)
                        && !taken.contains(email.id)
                });
                if let Some(heir) = heir {
                    found = true;
                    lost.remove(&marked.id);
                    taken.insert(heir.id.into());
                    marked.id = heir.id.into();
                }
            }
        }
        Ok(found)
    }

    /// `Email/set` for what is there, unless anything changed since it was seen.
    async fn ask(
        &self,
        left: &[Marked],
        seen: &Seen,
        destroyed: &mut HashSet<Box<str>>,
    ) -> Result<Said, UpstreamError> {
        let mut update = Map::new();
        let mut destroy = Vec::new();
        let there = left
            .iter()
            .filter_map(|marked| Some((marked, seen.of(marked)?)));
        for (marked, email) in there {
            match self.change(marked, email) {
                Some(patch) => {
                    update.insert(email.id.to_string(), Value::Object(patch));
                }
                None => destroy.push(&*email.id),
            }
        }
        let mut arguments = json!({ "ifInState": seen.state });
        if !update.is_empty() {
            arguments["update"] = Value::Object(update);
        }
        if !destroy.is_empty() {
            arguments["destroy"] = json!(destroy);
        }
        let call = Calls::default()
            .push("Email/set", arguments)
            .for_account(self.api.account());
        let answer: SetAnswer = match self.api.call(&call).await?.try_get(0)? {
            Ok(answer) => answer,
            Err(error) if error.is_state_mismatch() => return Ok(Said::StateMismatch),
            Err(error) => return Err(error.into()),
        };
        destroyed.extend(answer.destroyed.iter().map(Box::from));
        // What was not found is looked for again.
        match answer.not_updated.refused.or(answer.not_destroyed.refused) {
            None => Ok(Said::Done),
            Some(kind) => {
                let kind = kind.escape_debug().take(40).collect::<String>();
                tracing::warn!(kind, "the upstream refused a removal");
                Ok(Said::Refused)
            }
        }
    }

    /// How a message leaves: by a patch, or, where its folders are all it has
    /// and it is to be expunged, by being destroyed (None).
    fn change(&self, marked: &Marked, email: &Placed) -> Option<Map<String, Value>> {
        let folders: HashSet<&str> = self.mailboxes(marked).collect();
        let is_elsewhere = email
            .mailbox_ids
            .iter()
            .any(|mailbox| !folders.contains(mailbox));
        let mut patch = Map::new();
        let target = match self.leaving {
            Leaving::Marked(keyword) => {
                patch.insert(format!("keywords/{}", keyword.as_str()), json!(true));
                return Some(patch);
            }
            Leaving::Into(mailbox) => Some(mailbox),
            Leaving::Trash(_) | Leaving::Expunge if is_elsewhere => None,
            Leaving::Trash(trash) if !folders.contains(trash) => Some(trash),
            Leaving::Trash(_) | Leaving::Expunge => return None,
        };
        for mailbox in folders.into_iter().filter(|mailbox| email.is_in(mailbox)) {
            patch.insert(pointer(mailbox), Value::Null);
        }
        if let Some(target) = target {
            patch.insert(pointer(target), json!(true));
        }
        Some(patch)
    }
}

impl Seen {
    /// The Email that is this message: an id that names other octets by now is
    /// another message.
    fn of(&self, marked: &Marked) -> Option<&Placed> {
        let email = self.there.get(&marked.id)?;
        (email.blob_id == marked.blob).then_some(email)
    }
}

/// What came of a change.
enum Said {
    Done,
    StateMismatch,
    Refused,
}

/// A patch of one mailbox (RFC 8620 §5.3, RFC 6901 §3).
fn pointer(mailbox: &str) -> String {
    format!(
        "mailboxIds/{}",
        mailbox.replace('~', "~0").replace('/', "~1")
    )
}
