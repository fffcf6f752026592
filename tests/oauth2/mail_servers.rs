//! Tokens open real mailboxes: Dovecot, which asks about each of them, and Cyrus,
//! which judges them alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::{Cyrus, Dovecot, Gateway, messages};

use super::*;

/// How popgate answers a client that shows this token.
fn login(gateway: &Gateway, user: &str, token: &str) -> String {
    let response = format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}");
    let mut pop3 = gateway.pop3s();
    let answer = pop3.command(&format!("AUTH XOAUTH2 {}", STANDARD.encode(response)));
    if answer.starts_with("+ ") {
        return format!("-ERR {}", pop3.expect_err(""));
    }
    answer
}

#[tokio::test]
async fn dovecot() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = Dovecot::with_tokens_of(&server).unwrap();
    let url = dovecot.plain_url();
    let gateway = Gateway::with_fresh_connections(&url, &[]);
    let alice = "alice@example.org";
    let client = client(&server);
    let tokens = signed_in(&server, &client).await;
    assert!(login(&gateway, alice, tokens.access.reveal()).starts_with("+OK"));
    let refreshed = client.refresh(&tokens.refresh.unwrap()).await.unwrap();
    assert!(login(&gateway, alice, refreshed.access.reveal()).starts_with("+OK"));

    let bob = login(&gateway, "bob@example.org", refreshed.access.reveal());
    assert!(bob.starts_with("-ERR [AUTH]"), "{bob}");
    server.fault(json!({"endpoint": "introspect", "status": 500}));
    let outage = login(&gateway, alice, refreshed.access.reveal());
    assert!(outage.starts_with("-ERR [SYS/TEMP]"), "{outage}");
    server.revoke(alice);
    let revoked = login(&gateway, alice, refreshed.access.reveal());
    assert!(revoked.starts_with("-ERR [AUTH]"), "{revoked}");
    server.set_lifetime(-1);
    let ended = login(&gateway, alice, &server.access_token(alice));
    assert!(ended.starts_with("-ERR [AUTH]"), "{ended}");
}

#[tokio::test]
async fn cyrus() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let cyrus = Cyrus::with_tokens_of(&server).unwrap();
    cyrus.append("alice", "INBOX", &messages::plain(1, 500));
    let url = cyrus.jmap_url();
    let gateway = Gateway::with_fresh_connections(&url, &[]);
    let tokens = signed_in(&server, &client(&server)).await;
    // By JMAP the token alone says whose mailbox it is.
    let good = login(&gateway, "alice", tokens.access.reveal());
    assert!(good.starts_with("+OK"), "{good}");
    let forged = tokens.access.reveal().replacen('.', ".e", 1);
    let forged = login(&gateway, "alice", &forged);
    assert!(forged.starts_with("-ERR [AUTH]"), "{forged}");
}
