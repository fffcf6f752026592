//! A listing of an earlier session, brought up to date by what has changed since
//! (RFC 8621 §4.3): proved by the number of Emails, or not used at all.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::api::Api;
use super::calls::{Answers, Calls, GetAnswer, QueryAnswer};
use super::emails::Emails;
use super::ids::Ids;
use super::listing::{self, Wanted};
use super::mailboxes::Source;
use super::packed::{self, Changes, Head, Placed};
use super::session::is_final;
use crate::store::FolderKey;
use crate::upstream::UpstreamError;
use crate::upstream::snapshots::{Snapshot, Snapshots};

/// Requests for changes, before the mailbox is rather listed.
const MOST_ROUNDS: usize = 8;
/// Calls that one of them takes.
const CALLS: usize = 3;

/// The folders of a maildrop as they were, all at one state.
pub(super) struct Warm {
    places: Vec<Place>,
    snapshots: Vec<Arc<Snapshot>>,
    state: String,
    keywords: bool,
}

/// A folder, as the store and as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub key: FolderKey,
    pub mailbox: String,
}

/// `Email/changes` (RFC 8620 §5.2).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    old_state: String,
    new_state: String,
    has_more_changes: bool,
    created: Ids,
    updated: Ids,
    destroyed: Ids,
}

/// What became of a question that came with another request.
pub(super) enum Asked {
    /// There was no such question.
    Nothing,
    /// The server does not say, or nothing that could be.
    Unanswered,
    Answered(Box<Answered>),
}

/// What has changed since a state, and what the changed Emails are now.
pub(super) struct Answered {
    changed: Changed,
    created: GetAnswer<Placed>,
    updated: GetAnswer<Placed>,
}

/// The question what has changed, on its way with another request.
pub(super) struct Rider<'a> {
    warm: Option<&'a Warm>,
    asked: bool,
    answered: Option<Answered>,
}

impl Warm {
    /// The snapshots of these folders, where there are some of all, and as this
    /// session needs them.
    pub async fn load(
        snapshots: &Snapshots,
        places: Vec<Place>,
        account: &str,
        keywords: bool,
    ) -> Option<Self> {
        let mut loaded = Vec::new();
        let mut state: Option<String> = None;
        for place in &places {
            let snapshot = snapshots.get(&place.key).await?;
            let head = Head::of(&snapshot)?;
            let is_it = head.account == account && head.mailbox == place.mailbox;
            if !is_it || head.keywords != keywords {
                return None;
            }
            if state.get_or_insert_with(|| head.state.clone()) != &head.state {
                return None;
            }
            loaded.push(snapshot);
        }
        Some(Self {
            places,
            snapshots: loaded,
            state: state?,
            keywords,
        })
    }

    /// The folders, in their order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether it is of these folders.
    pub fn is_of(&self, places: &[Place]) -> bool {
        self.places == places
    }

    /// Adds the calls.
    fn ask(&self, state: &str, calls: Calls, api: &Api) -> Calls {
        let first = calls.len().to_string();
        let properties = listing::properties(self.keywords, true);
        let of_changes =
            |path: &str| json!({ "resultOf": first, "name": "Email/changes", "path": path });
        let get = |path| json!({ "#ids": of_changes(path), "properties": properties });
        calls
            .push(
                "Email/changes",
                json!({ "sinceState": state, "maxChanges": api.limits().objects_in_get }),
            )
            .push("Email/get", get("/created"))
            .push("Email/get", get("/updated"))
    }
}

impl<'a> Rider<'a> {
    pub fn new(warm: Option<&'a Warm>) -> Self {
        Self {
            warm,
            asked: false,
            answered: None,
        }
    }

    /// Adds the question to a request, where the server takes as many calls.
    pub fn board(&self, calls: Calls, api: &Api) -> Calls {
        match self.warm {
            Some(warm) if !self.asked && calls.len() + CALLS <= api.limits().calls_in_request => {
                warm.ask(&warm.state, calls, api)
            }
            _ => calls,
        }
    }

    /// Takes the answer, which is behind the first `place` ones. Whatever is
    /// wrong with it is no matter of the request that it came with.
    pub fn alight(&mut self, answers: &Answers, place: usize) {
        self.asked = true;
        self.answered = read(answers, place);
    }

    /// What became of the question.
    pub fn asked(self) -> Asked {
        match self.answered {
            Some(answered) => Asked::Answered(Box::new(answered)),
            None if self.asked => Asked::Unanswered,
            None => Asked::Nothing,
        }
    }
}

fn read(answers: &Answers, place: usize) -> Option<Answered> {
    let changed = match answers.try_get(place).ok()? {
        Ok(changed) => changed,
        Err(error) => {
            tracing::debug!(kind = error.kind, "no changes are told");
            return None;
        }
    };
    Some(Answered {
        changed,
        created: answers.get(place + 1).ok()?,
        updated: answers.get(place + 2).ok()?,
    })
}

/// What brings a maildrop's folders up to date.
pub(super) struct Refresh<'a> {
    pub api: &'a Api,
    /// The folders, in the order of what is warm.
    pub sources: &'a [Source],
    pub most: usize,
}

impl Refresh<'_> {
    /// The listings of the folders now, and what is to be kept of them. None
    /// where they have to be listed. `first` is what was answered at the login,
    /// with the number of Emails in each folder.
    pub async fn run(
        &self,
        warm: &Warm,
        first: Option<Box<Answered>>,
    ) -> Result<Option<Vec<(Emails, Snapshot)>>, UpstreamError> {
        let refreshed = timeout(self.api.http.command_timeout(), self.refresh(warm, first));
        match refreshed.await {
            Ok(Ok(refreshed)) => Ok(refreshed),
            Ok(Err(error)) if is_final(&error) => Err(error),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the mailbox is listed anew");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    async fn refresh(
        &self,
        warm: &Warm,
        first: Option<Box<Answered>>,
    ) -> Result<Option<Vec<(Emails, Snapshot)>>, UpstreamError> {
        let mut totals: Vec<Option<u64>> = match first {
            Some(_) => self.sources.iter().map(|source| source.total).collect(),
            None => Vec::new(),
        };
        let mut first = first;
        let mut changes = Changes::new();
        let mut state = warm.state.clone();
        for _ in 0..MOST_ROUNDS {
            let answered = match first.take() {
                Some(answered) => Some(*answered),
                None => {
                    let (answered, counted) = self.ask(warm, &state).await?;
                    totals = counted;
                    answered
                }
            };
            let Some(answered) = answered else {
                return Ok(None);
            };
            let most = self.api.limits().objects_in_get;
            let Some(is_last) = take(answered, most, &mut state, &mut changes) else {
                return Ok(None);
            };
            if is_last {
                return self.finish(warm, &state, &changes, &totals).await;
            }
        }
        Ok(None)
    }

    /// Asks for the changes since a state, and how many Emails there are.
    async fn ask(
        &self,
        warm: &Warm,
        state: &str,
    ) -> Result<(Option<Answered>, Vec<Option<u64>>), UpstreamError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Counted {
            id: Box<str>,
            total_emails: Option<u64>,
        }
        let calls = warm.ask(state, Calls::default(), self.api);
        let counts = calls.len() < self.api.limits().calls_in_request;
        let ids: Vec<&str> = self.sources.iter().map(|it| &*it.id).collect();
        let count = json!({ "ids": ids, "properties": ["id", "totalEmails"] });
        let calls = if counts {
            calls.push("Mailbox/get", count)
        } else {
            calls
        };
        if calls.len() > self.api.limits().calls_in_request {
            return Ok((None, Vec::new()));
        }
        let answers = self
            .api
            .call(&calls.for_account(self.api.account()))
            .await?;
        let counted: Vec<Counted> = if counts {
            answers.get::<GetAnswer<Counted>>(CALLS)?.list
        } else {
            Vec::new()
        };
        let total = |id: &str| counted.iter().find(|it| *it.id == *id)?.total_emails;
        let totals = ids.into_iter().map(total).collect();
        Ok((read(&answers, 0), totals))
    }

    /// Makes the listings, and proves them.
    async fn finish(
        &self,
        warm: &Warm,
        state: &str,
        changes: &Changes,
        totals: &[Option<u64>],
    ) -> Result<Option<Vec<(Emails, Snapshot)>>, UpstreamError> {
        let mut most = self.most;
        let mut listed = Vec::new();
        let mut doubtful = Vec::new();
        for (at, (snapshot, source)) in warm.snapshots.iter().zip(self.sources).enumerate() {
            let Some((emails, snapshot)) = packed::refresh(snapshot, state, changes) else {
                return Ok(None);
            };
            // The listing says what is wrong with too many.
            if emails.len() > most {
                return Ok(None);
            }
            most -= emails.len();
            let count = emails.len() as u64;
            if totals.get(at).copied().flatten() != Some(count) {
                doubtful.push((source, count));
            }
            listed.push((emails, snapshot));
        }
        Ok(self.are_counted(&doubtful).await?.then_some(listed))
    }

    /// Whether a query finds as many Emails. A mailbox may count otherwise, or
    /// not tell.
    async fn are_counted(&self, doubtful: &[(&Source, u64)]) -> Result<bool, UpstreamError> {
        for some in doubtful.chunks(self.api.limits().calls_in_request.min(CALLS)) {
            let mut calls = Calls::default();
            for (source, _) in some {
                let wanted = Wanted {
                    mailbox: &source.id,
                    most: self.most,
                    expected: None,
                    keywords: false,
                };
                calls = calls.push("Email/query", wanted.query(0, 1));
            }
            let answers = self
                .api
                .call(&calls.for_account(self.api.account()))
                .await?;
            for (place, (_, count)) in some.iter().enumerate() {
                let queried: QueryAnswer = answers.get(place)?;
                if queried.total != Some(*count) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Takes what has changed since `state`, which becomes the new one: no more than
/// was asked for. Returns whether that is all; None where it cannot be.
fn take(
    answered: Answered,
    most: usize,
    state: &mut String,
    changes: &mut Changes,
) -> Option<bool> {
    let Answered {
        changed,
        created,
        updated,
    } = answered;
    let all = [&changed.created, &changed.updated, &changed.destroyed];
    let count: usize = all.into_iter().map(Ids::len).sum();
    if changed.old_state != *state || count > most {
        return None;
    }
    // What an Email is now may be of later than the new state: it is asked for
    // once more what has changed since then.
    let is_last = !changed.has_more_changes
        && (count == 0
            || (created.state == changed.new_state && updated.state == changed.new_state));
    if changed.has_more_changes && changed.new_state == *state {
        return None;
    }
    for (ids, got) in [(&changed.created, created), (&changed.updated, updated)] {
        let mut due: HashSet<&str> = ids.iter().collect();
        for placed in got.list {
            if !due.remove(&*placed.id) || !placed.fits() {
                return None;
            }
            changes.insert(placed.id.clone(), Some(placed));
        }
        for id in got.not_found.iter() {
            if !due.remove(id) {
                return None;
            }
            changes.insert(id.into(), None);
        }
        if !due.is_empty() {
            return None;
        }
    }
    for id in changed.destroyed.iter() {
        changes.insert(id.into(), None);
    }
    *state = changed.new_state;
    Some(is_last)
}
