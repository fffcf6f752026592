//! Whose mailbox it is that a token opens, for somebody who enrols.

use std::sync::Arc;

use popgate::accounts::{Probe as _, ProbeError};
use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::sasl::Credentials;
use popgate::server::UpstreamProbe;
use popgate::upstream::jmap::Jmap;
use popgate::upstream::{Upstream, Upstreams};
use serde_json::json;

use crate::support::ScriptedJmap;

const ALICE: &str = "alice@example.org";

/// What becomes of alice's enrolment at a server that calls its user and his account
/// so.
fn enrol(username: &str, account: &str) -> Result<(), ProbeError> {
    let (username, account) = (username.to_owned(), json!(account));
    let server = ScriptedJmap::builder()
        .account(|it| {
            it.username = username;
            it.patch.push(("/accounts/acc/name".to_owned(), account));
        })
        .start();
    let overrides = Overrides {
        upstream: Some(Given {
            value: server.url(),
            origin: Origin::Missing("test"),
        }),
        ..Overrides::default()
    };
    let Some(config::Upstream::Jmap(config)) =
        config::load(overrides, Purpose::Check).unwrap().upstream
    else {
        panic!("no JMAP");
    };
    let make = move |_: &str| Ok(Arc::new(Jmap::new(config.clone(), None)) as Arc<dyn Upstream>);
    let probe = UpstreamProbe::new(Arc::new(Upstreams::new(None, Box::new(make))), None);
    let credentials = Credentials::Bearer {
        user: ALICE.to_owned(),
        token: "tok-alice".into(),
    };
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(probe.probe(&server.url(), credentials, None))
}

#[test]
fn nobody_enrols_an_address_with_a_token_that_may_be_anybodys() {
    assert_eq!(enrol(ALICE, "mail"), Ok(()));
    assert_eq!(enrol("", ALICE), Ok(()));
    assert_eq!(
        enrol("mallory@example.org", ALICE),
        Err(ProbeError::Refused)
    );
    // Servers that give no name.
    for account in ["mallory@example.org", "mail", ""] {
        let enrolled = enrol("", account);
        assert!(
            matches!(enrolled, Err(ProbeError::Misconfigured(_))),
            "{account}: {enrolled:?}"
        );
    }
}
