//! What is nobody's to read is in no line of the log and in no metric, whatever is
//! asked of the pages.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

use super::*;

/// What every test of this program logs.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that popgate can be told to log.
fn log_everything() {
    let all = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("popgate", LevelFilter::TRACE);
    let log = layer().with_ansi(false).with_writer(|| Log);
    tracing_subscriber::registry()
        .with(log.with_filter(all))
        .init();
}

#[test]
fn no_secret_of_the_pages_is_logged_or_counted() {
    log_everything();
    let Some(site) = Site::start() else { return };
    let mut secrets = vec![site::OPERATOR.to_owned(), site::APP_PASSWORD.to_owned()];
    let mut typed = |secret: &str| {
        secrets.push(secret.to_owned());
        secret.to_owned()
    };

    // All that can go well, and wrong.
    let mut alice = Visitor::new(&site);
    alice.sign_in("canary-alice@example.org");
    let password = typed(&alice.add_device("Phone").setting("password"));
    let csrf = typed(&alice.get("/enrol/devices").field("csrf"));
    assert!(site.opens("canary-alice@example.org", &password));
    for fault in [
        json!({"endpoint": "token", "status": 500}),
        json!({"endpoint": "token", "error": "invalid_grant"}),
        json!({"endpoint": "token", "error": "invalid_client"}),
    ] {
        let mut bob = Visitor::new(&site);
        let url = bob.leave("mail", "");
        for name in ["state", "nonce", "code_challenge"] {
            let value = url.query_pairs().find(|(it, _)| it == name);
            typed(&value.unwrap().1);
        }
        let back = site.provider.sign_in(&url, "bob@example.org");
        site.provider.fault(fault);
        assert!(bob.come_back(&back).status >= 400);
        site.provider.mend();
        assert!(bob.come_back(&back).status >= 400, "replayed");
        assert!(alice.come_back(&back).status >= 400, "in another browser");
    }
    let code = typed("canary-code");
    let path = format!("/enrol/callback/mail?state=canary-state&code={code}");
    typed("canary-state");
    assert!(alice.get(&path).status >= 400);

    let mut carol = Visitor::new(&site);
    let form = carol.get("/enrol/provider/app").field("csrf");
    for secret in [typed("canary-app-password"), site::APP_PASSWORD.to_owned()] {
        let fields = [
            ("csrf", form.as_str()),
            ("address", "carol@example.org"),
            ("secret", &secret),
        ];
        carol.post("/enrol/provider/app", &fields);
    }
    let form = carol.get("/operator").field("csrf");
    let wrong = typed("canary-operator");
    carol.post(
        "/operator/sign-in",
        &[("csrf", &form), ("password", &wrong)],
    );
    carol.operate();
    carol.post("/enrol/devices/add", &[("csrf", &csrf), ("name", "x")]);
    let cookies = alice.cookies.values().chain(carol.cookies.values());
    secrets.extend(cookies.cloned());
    secrets.extend(site.provider.issued());

    let metrics = carol.get("/metrics").body;
    assert!(metrics.contains("popgate_token_state"), "{metrics}");
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = String::from_utf8_lossy(&log);
    for told in ["canary-alice@example.org", "a wrong operator password"] {
        assert!(log.contains(told), "{told} is not in {log}");
    }
    assert!(secrets.iter().all(|secret| secret.len() > 8));
    for secret in &secrets {
        assert!(!log.contains(secret), "{secret} is in {log}");
        assert!(!metrics.contains(secret), "{secret} is in {metrics}");
    }
}
