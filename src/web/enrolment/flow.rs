//! People who have been sent to their provider, and are to come back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::session::{Digest, Id, sha256};
use crate::oauth2::AuthorizationRequest;

/// How long somebody may take to sign in.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// How many may be under way at once.
const MOST: usize = 2_000;

/// How many of them in one browser.
const MOST_IN_A_BROWSER: usize = 8;

/// Somebody under way.
#[derive(Debug)]
pub(super) struct Flow {
    browser: Digest,
    /// The name of the provider that he was sent to.
    pub(super) provider: String,
    /// Which mailbox it is for, where that was typed.
    pub(super) address: Option<String>,
    pub(super) request: AuthorizationRequest,
    started: Instant,
}

/// Everybody under way, by the digest of `state` (RFC 6749 §10.12).
#[derive(Debug, Default)]
pub(super) struct Flows(Mutex<HashMap<Digest, Flow>>);

impl Flows {
    /// Somebody goes. The oldest of too many are forgotten, first those of the same
    /// browser.
    pub(super) fn begin(
        &self,
        browser: &Id,
        provider: &str,
        address: Option<String>,
        request: AuthorizationRequest,
    ) {
        let state = sha256(request.state.reveal().as_bytes());
        let flow = Flow {
            browser: browser.digest(),
            provider: provider.to_owned(),
            address,
            request,
            started: Instant::now(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, flow| flow.started.elapsed() < LONGEST);
        let of_browser = all
            .values()
            .filter(|other| other.browser == flow.browser)
            .count();
        if of_browser >= MOST_IN_A_BROWSER {
            forget_oldest(&mut all, |other| other.browser == flow.browser);
        }
        if all.len() >= MOST {
            forget_oldest(&mut all, |_| true);
        }
        all.insert(state, flow);
    }

    /// Somebody comes back: what was begun, once, in the browser that began it and
    /// at the provider that it was begun with.
    pub(super) fn take(&self, browser: &Id, provider: &str, state: &str) -> Option<Flow> {
        let flow = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&sha256(state.as_bytes()))?;
        let good = flow.browser == browser.digest()
            && flow.provider == provider
            && flow.started.elapsed() < LONGEST;
        good.then_some(flow)
    }
}

fn forget_oldest(all: &mut HashMap<Digest, Flow>, among: impl Fn(&Flow) -> bool) {
    let oldest = all
        .iter()
        .filter(|(_, flow)| among(flow))
        .min_by_key(|(_, flow)| flow.started)
        .map(|(state, _)| *state);
    if let Some(state) = oldest {
        all.remove(&state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(state: &str) -> AuthorizationRequest {
        AuthorizationRequest {
            url: "https://provider.example/".parse().unwrap(),
            state: state.into(),
            verifier: "verifier".into(),
            nonce: "nonce".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_good_once_in_its_browser_at_its_provider_and_in_time() {
        let flows = Flows::default();
        let (mine, other) = (Id::new().unwrap(), Id::new().unwrap());
        let begin = |state: &str| flows.begin(&mine, "a", None, request(state));
        begin("1");
        assert!(flows.take(&mine, "a", "1").is_some());
        assert!(flows.take(&mine, "a", "1").is_none(), "replayed");
        begin("2");
        assert!(flows.take(&other, "a", "2").is_none(), "another browser");
        assert!(flows.take(&mine, "a", "2").is_none(), "it was used");
        begin("3");
        assert!(flows.take(&mine, "b", "3").is_none(), "another provider");
        begin("4");
        tokio::time::advance(LONGEST).await;
        assert!(flows.take(&mine, "a", "4").is_none(), "too late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_bounded_and_a_browser_displaces_its_own() {
        let flows = Flows::default();
        let (mine, busy) = (Id::new().unwrap(), Id::new().unwrap());
        flows.begin(&mine, "a", None, request("mine"));
        for number in 0..100 {
            flows.begin(&busy, "a", None, request(&format!("busy-{number}")));
        }
        assert!(flows.0.lock().unwrap().len() <= 1 + MOST_IN_A_BROWSER);
        assert!(flows.take(&mine, "a", "mine").is_some());
        for number in 0..MOST + 10 {
            let browser = Id::new().unwrap();
            flows.begin(&browser, "a", None, request(&format!("{number}")));
        }
        assert!(flows.0.lock().unwrap().len() <= MOST);
    }
}
