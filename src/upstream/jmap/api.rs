//! A session with a JMAP API: the resource, and the client that calls it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::calls::{Answers, Calls};
use super::http::Http;
use super::resource::{Resource, ServerLimits};
use crate::upstream::UpstreamError;

/// An account's API.
pub(super) struct Api {
    pub http: Http,
    pub resource: Resource,
    /// The state of the session resource by the last answer, where it said one
    /// (RFC 8620 §3.4).
    state: Mutex<Option<String>>,
    /// Requests that may be made at once (RFC 8620 §2, maxConcurrentRequests).
    at_once: Semaphore,
}

impl Api {
    /// The API that `resource` tells of.
    pub fn new(http: Http, resource: Resource) -> Self {
        Self {
            http,
            state: Mutex::default(),
            at_once: Semaphore::new(resource.limits.concurrent_requests),
            resource,
        }
    }

    /// The account whose mail this is.
    pub fn account(&self) -> &str {
        &self.resource.account
    }

    /// The server's own limits.
    pub fn limits(&self) -> ServerLimits {
        self.resource.limits
    }

    /// Makes the calls of one request.
    pub async fn call(&self, calls: &Calls) -> Result<Answers, UpstreamError> {
        // It is never closed.
        let _turn = self.at_once.acquire().await;
        let json = self.http.post(&self.resource.api, calls.encode()).await?;
        let answers = calls.decode(json)?;
        if let Some(state) = &answers.session_state {
            let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if known.as_ref() != Some(state) {
                *known = Some(state.clone());
            }
        }
        Ok(answers)
    }

    /// Whether the session resource has changed since it was read.
    pub fn is_outdated(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().is_some_and(|it| *it != self.resource.state)
    }
}
