//! The listing of a mailbox (RFC 8621 §4.4, §4.2): whole, or an error.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use super::api::Api;
use super::calls::{Answers, Calls, GetAnswer, QueryAnswer};
use super::emails::{Emails, Listed, Places};
use super::ids::{Ids, batches};
use crate::upstream::UpstreamError;

/// What is listed.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The mailbox's id.
    pub mailbox: &'a str,
    /// Messages in it, at most.
    pub most: usize,
    /// Emails in it, as far as is known.
    pub expected: Option<u64>,
    /// Whether the keyword that hides a message is looked for. A filter would
    /// leave out what copies are counted by.
    pub keywords: bool,
}

/// All Emails of a mailbox, whole, in the order of their arrival; and a state of
/// Emails that they are at least as new as, where the server told one.
pub(super) async fn list(
    api: &Api,
    what: Wanted<'_>,
) -> Result<(Emails, Option<String>), UpstreamError> {
    /// Tries at a mailbox that changes meanwhile. Each goes on where the one
    /// before it came to.
    const TRIES: usize = 5;
    let tries = async {
        let mut listing = Listing {
            api,
            what,
            emails: Emails::default(),
            places: Places::default(),
            total: None,
            state: None,
        };
        let mut ids = match listing.many().await {
            Some(first) => listing.ids(Some(first)).await?,
            None => listing.first_page().await?,
        };
        for _ in 0..TRIES {
            if ids.is_none() {
                ids = listing.ids(None).await?;
            }
            if let Some(ids) = ids.take()
                && listing.complete(&ids).await?
            {
                let state = listing.state.take();
                return Ok((listing.arranged(&ids)?, state));
            }
        }
        Err(UpstreamError::temporary(
            "the mailbox changed while it was listed",
        ))
    };
    match timeout(api.http.command_timeout(), tries).await {
        Ok(listed) => listed,
        Err(_) => Err(UpstreamError::temporary("no whole listing in time")),
    }
}

/// A listing under way.
struct Listing<'a> {
    api: &'a Api,
    what: Wanted<'a>,
    /// What was got so far, wanted or not.
    emails: Emails,
    places: Places,
    /// How many Emails there were in the beginning.
    total: Option<u64>,
    /// The state before anything was listed.
    state: Option<String>,
}

impl Listing<'_> {
    /// The ids of a mailbox that is known to be large: all of them, or as many as
    /// the server gives at once. None where anything is odd.
    async fn many(&mut self) -> Option<QueryAnswer> {
        /// Octets of an id in an answer, most often.
        const EACH: usize = 40;
        let limits = self.api.limits();
        let expected = usize::try_from(self.what.expected?).ok()?;
        let fits = expected.checked_mul(EACH)? <= self.api.http.largest_answer() / 2;
        if expected <= limits.objects_in_get || expected > self.what.most || !fits {
            return None;
        }
        let calls = self
            .asking_state(limits.calls_in_request > 1)
            .push("Email/query", self.what.query(0, expected + 100));
        let query = calls.len() - 1;
        let calls = calls.for_account(self.api.account());
        let answers = self.api.call(&calls).await.ok()?;
        let first: QueryAnswer = answers.get(query).ok()?;
        if first.position.is_some_and(|position| position != 0)
            || first.ids.is_empty()
            || self.bound(first.ids.len(), first.total).is_err()
        {
            return None;
        }
        self.take_state(&answers, query > 0);
        self.total = first.total;
        Some(first)
    }

    /// Asks for a state from before the query that follows: what changes behind
    /// it is told later.
    fn asking_state(&self, tells_state: bool) -> Calls {
        if tells_state {
            let nothing = json!({ "ids": [], "properties": ["id"] });
            return Calls::default().push("Email/get", nothing);
        }
        Calls::default()
    }

    fn take_state(&mut self, answers: &Answers, tells_state: bool) {
        self.state = None;
        if tells_state {
            let told = answers.get::<GetAnswer<IgnoredAny>>(0);
            self.state = told.ok().map(|told| told.state);
        }
    }

    /// The first ids, and their Emails, in one request: all of a small mailbox.
    /// None where there are more.
    async fn first_page(&mut self) -> Result<Option<Ids>, UpstreamError> {
        let limits = self.api.limits();
        let calls = self.asking_state(limits.calls_in_request > 2);
        let query = calls.len();
        let of_query =
            json!({ "resultOf": query.to_string(), "name": "Email/query", "path": "/ids" });
        let get = json!({ "#ids": of_query, "properties": self.what.properties() });
        let calls = calls
            .push("Email/query", self.what.query(0, limits.objects_in_get))
            .push("Email/get", get)
            .for_account(self.api.account());
        let answers = self.api.call(&calls).await?;
        self.take_state(&answers, query > 0);
        let queried: QueryAnswer = answers.get(query)?;
        let ids = queried.ids;
        self.bound(ids.len(), queried.total)?;
        self.total = queried.total;
        let asked: Vec<&str> = ids.iter().collect();
        self.learn(&asked, answers.get(query + 1)?)?;
        let is_whole = queried.total == Some(ids.len() as u64);
        Ok(is_whole.then_some(ids))
    }

    /// All ids, the first of which may be known. None where the mailbox changed
    /// between two pages of them.
    async fn ids(&self, first: Option<QueryAnswer>) -> Result<Option<Ids>, UpstreamError> {
        let (mut ids, mut state) = match first {
            Some(first) if first.total == Some(first.ids.len() as u64) => {
                return Ok(Some(first.ids));
            }
            Some(first) => (first.ids, Some(first.query_state)),
            None => (Ids::default(), None),
        };
        loop {
            let limit = self.page();
            let call = Calls::default()
                .push("Email/query", self.what.query(ids.len(), limit))
                .for_account(self.api.account());
            let page: QueryAnswer = self.api.call(&call).await?.get(0)?;
            if state.get_or_insert_with(|| page.query_state.clone()) != &page.query_state {
                return Ok(None);
            }
            let asked = ids.len() as u64;
            if page.ids.is_empty() {
                return if page.total.is_none_or(|total| total <= asked) {
                    Ok(Some(ids))
                } else {
                    Err(UpstreamError::protocol("the listing is not whole"))
                };
            }
            if page.position.is_some_and(|position| position != asked) {
                return Err(UpstreamError::protocol("another page than was asked for"));
            }
            if !ids.extend(&page.ids) {
                return Err(UpstreamError::protocol("ids without end"));
            }
            self.bound(ids.len(), page.total)?;
            if page.total == Some(ids.len() as u64) {
                return Ok(Some(ids));
            }
        }
    }

    /// Ids to ask for at once: all of them where their answer is not too large.
    fn page(&self) -> usize {
        const AT_FIRST: usize = 10_000;
        let octets: usize = self.emails.iter().map(|email| email.id.len()).sum();
        let each = octets.checked_div(self.emails.len()).unwrap_or(255) + 8;
        let total = self.total.unwrap_or(AT_FIRST as u64).saturating_add(100);
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        total.min(self.api.http.largest_answer() / 2 / each).max(1)
    }

    fn bound(&self, ids: usize, total: Option<u64>) -> Result<(), UpstreamError> {
        if ids > self.what.most || total.is_some_and(|total| total > self.what.most as u64) {
            return Err(UpstreamError::Misconfigured(
                "the mailbox has too many messages (upstream_limits.messages)".into(),
            ));
        }
        if total.is_some_and(|total| total < ids as u64) {
            return Err(UpstreamError::protocol("more ids than there are Emails"));
        }
        Ok(())
    }

    /// Gets those of these Emails that are not known yet, several requests at a
    /// time. False where one of them is gone by now.
    async fn complete(&mut self, ids: &Ids) -> Result<bool, UpstreamError> {
        let (api, limits, properties) = (self.api, self.api.limits(), self.what.properties());
        // The words of the request are less than the rest.
        let octets = limits.request - 1024;
        let pages = {
            let unknown: Vec<&str> = ids
                .iter()
                .filter(|id| self.places.of(id, &self.emails).is_none())
                .collect();
            batches(&unknown, limits.objects_in_get, octets, 6)
        };
        let gets = pages.into_iter().map(|page| get(api, page, properties));
        let gets: Vec<_> = gets.collect();
        let mut pages = stream::iter(gets).buffer_unordered(limits.concurrent_requests);
        let mut whole = true;
        while let Some((page, answer)) = pages.try_next().await? {
            whole &= self.learn(&page, answer)?;
        }
        Ok(whole)
    }

    /// Takes the Emails that were asked for: each once, and no others. False
    /// where one is gone by now.
    fn learn(&mut self, ids: &[&str], answer: GetAnswer<Listed>) -> Result<bool, UpstreamError> {
        let (emails, whole) = check(ids, answer)?;
        for email in emails {
            if !self.emails.push(&email) {
                return Err(UpstreamError::protocol("an Email that cannot be one"));
            }
            self.places.add(&email.id, self.emails.len() - 1);
        }
        Ok(whole)
    }

    /// The Emails of these ids, all of which are known.
    fn arranged(mut self, ids: &Ids) -> Result<Emails, UpstreamError> {
        let mut places: Vec<u32> = Vec::with_capacity(ids.len());
        let mut is_taken = vec![false; self.emails.len()];
        for id in ids.iter() {
            let place = self.places.of(id, &self.emails);
            let taken = place.and_then(|place| is_taken.get_mut(place));
            let (Some(place), Some(taken)) = (place, taken) else {
                return Err(UpstreamError::protocol("the listing is not whole"));
            };
            if std::mem::replace(taken, true) {
                let reason = "the listing names a message twice";
                return Err(UpstreamError::protocol(reason));
            }
            places.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        self.places = Places::default();
        let places = places.into_iter().map(|place| place as usize);
        self.emails.arrange(places);
        Ok(self.emails)
    }
}

impl Wanted<'_> {
    /// The arguments of a query for so many ids from a place on.
    pub fn query(&self, position: usize, limit: usize) -> serde_json::Value {
        json!({
            "filter": { "inMailbox": self.mailbox },
            "sort": [{ "property": "receivedAt", "isAscending": true }],
            "collapseThreads": false,
            "position": position,
            "limit": limit,
            "calculateTotal": true,
        })
    }

    fn properties(self) -> &'static [&'static str] {
        properties(self.keywords, false)
    }
}

/// What is asked for of each Email: its keywords where they matter, and the
/// mailboxes that it is in.
pub(super) fn properties(keywords: bool, placed: bool) -> &'static [&'static str] {
    const PROPERTIES: [&str; 6] = [
        "mailboxIds",
        "id",
        "blobId",
        "size",
        "receivedAt",
        "keywords",
    ];
    let first = usize::from(!placed);
    let end = PROPERTIES.len() - usize::from(!keywords);
    &PROPERTIES[first..end]
}

async fn get<'a>(
    api: &Api,
    page: Vec<&'a str>,
    properties: &'static [&'static str],
) -> Result<(Vec<&'a str>, GetAnswer<Listed>), UpstreamError> {
    let call = Calls::default()
        .push(
            "Email/get",
            json!({ "ids": page, "properties": properties }),
        )
        .for_account(api.account());
    let answer = api.call(&call).await?.get(0)?;
    Ok((page, answer))
}

/// The Emails of an answer that is about each of the ids that were asked for,
/// once, and about no others; and whether none of them was gone.
fn check(ids: &[&str], answer: GetAnswer<Listed>) -> Result<(Vec<Listed>, bool), UpstreamError> {
    let mut due: HashSet<&str> = ids.iter().copied().collect();
    if !answer.list.iter().all(|email| due.remove(&*email.id)) {
        return Err(UpstreamError::protocol("an Email that was not asked for"));
    }
    for id in answer.not_found.iter() {
        due.remove(id);
    }
    if !due.is_empty() {
        return Err(UpstreamError::protocol("the listing is not whole"));
    }
    Ok((answer.list, answer.not_found.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::keywords::Keywords;
    use super::*;

    #[test]
    fn a_get_is_whole_or_an_error() {
        let answer = |list: &[&str], not_found: &str| {
            let emails = list.iter().map(|id| Listed {
                id: (*id).into(),
                blob_id: "b".into(),
                size: 1,
                received_at: "2026-01-02T00:00:00Z".into(),
                keywords: Keywords::default(),
            });
            let answer = GetAnswer {
                state: "s".into(),
                list: emails.collect(),
                not_found: serde_json::from_str(not_found).unwrap(),
            };
            check(&["a", "b"], answer).map(|(emails, whole)| (emails.len(), whole))
        };
        assert_eq!(answer(&["b", "a"], "[]").unwrap(), (2, true));
        assert_eq!(answer(&["a"], "[\"b\"]").unwrap(), (1, false));
        assert!(answer(&["a"], "[]").is_err());
        assert!(answer(&["a", "a"], "[]").is_err());
        assert!(answer(&["a", "b", "c"], "[]").is_err());
    }
}
