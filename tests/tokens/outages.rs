//! Nobody loses a password because a provider or a mail server is out of order.

use serde_json::json;

use crate::site::{Site, dovecot, login, wait_for_metric};
use crate::support::AuthorizationServer;

#[test]
fn a_provider_that_fails_is_no_refusal() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let site = Site::new(server, &dovecot.plain_url(), 3600, "");
    let gateway = site.start();
    assert_eq!(site.read(&gateway), 2);
    for fault in [
        json!({"grant": "refresh_token", "status": 500}),
        json!({"grant": "refresh_token", "status": 429, "retry_after": 1}),
        json!({"grant": "refresh_token", "error": "temporarily_unavailable"}),
    ] {
        site.server.fault(fault.clone());
        site.end_access();
        let answer = site.login(&gateway);
        assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{fault}: {answer}");
        // It is left alone for a moment; then all is well.
        let mut tries = 0;
        while site.login(&gateway).starts_with("-ERR [SYS/TEMP]") {
            std::thread::sleep(std::time::Duration::from_millis(200));
            tries += 1;
            assert!(tries < 300, "{fault}");
        }
        assert_eq!(site.read(&gateway), 2);
    }
    assert_eq!(site.account().trouble, None);
    assert_eq!(site.server.replays(), 0);

    // popgate itself is refused: that is the operator's affair, not alice's.
    site.server
        .fault(json!({"grant": "refresh_token", "error": "invalid_client"}));
    site.end_access();
    let answer = site.login(&gateway);
    assert!(answer.starts_with("-ERR [SYS/PERM]"), "{answer}");
    gateway.wait_for_log("a setting must be changed in [provider.mail]");
    assert_eq!(site.account().trouble, None);
    wait_for_metric(
        &gateway,
        "popgate_token_refreshes_total{result=\"misconfigured\"} 1",
    );
}

#[test]
fn a_mail_server_that_cannot_judge_tokens_is_no_refusal() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let site = Site::new(
        server,
        &dovecot.plain_url(),
        3600,
        "[upstream_rest]\nlongest = \"0s\"\n",
    );
    let gateway = site.start();
    assert_eq!(site.read(&gateway), 2);
    for status in [401, 500] {
        site.server
            .fault(json!({"endpoint": "introspect", "status": status}));
        let answer = site.login(&gateway);
        assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{status}: {answer}");
        site.server.mend();
        assert_eq!(site.read(&gateway), 2);
    }
    assert_eq!(site.server.refreshes(), 0);
}

#[test]
fn a_wrong_password_costs_no_token_and_asks_nobody() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let site = Site::new(server, &dovecot.plain_url(), 3600, "");
    let gateway = site.start();
    let before = site.account();
    for wrong in ["wrong", "pw-alice@example.org"] {
        let answer = login(&gateway, wrong);
        assert!(answer.starts_with("-ERR [AUTH]"), "{answer}");
    }
    assert_eq!(site.account(), before);
    assert!(
        site.server
            .asked()
            .iter()
            .all(|it| it.endpoint != "introspect")
    );
    assert_eq!(site.read(&gateway), 2);
}
