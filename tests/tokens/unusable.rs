//! What cannot be opened is not counted among what is well.

use crate::site::{Site, metrics, wait_for_metric};
use crate::support::AuthorizationServer;

#[test]
fn neither_without_its_key_nor_in_a_store_that_is_damaged() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let site = Site::new(server, "imap+plain://127.0.0.1:1", 3600, "");
    let gateway = site.start();
    wait_for_metric(&gateway, "popgate_token_state{state=\"ok\"} 1");
    wait_for_metric(&gateway, "popgate_store_usable 1");
    drop(gateway);

    let another = popgate::accounts::KeyRing::generate().unwrap();
    std::fs::write(site.path("key"), another.reveal()).unwrap();
    let gateway = site.start();
    gateway.wait_for_log("A KEY IS MISSING");
    wait_for_metric(&gateway, "popgate_token_state{state=\"unreadable\"} 1");
    wait_for_metric(&gateway, "popgate_token_state{state=\"ok\"} 0");
    drop(gateway);

    std::fs::write(site.state().join("durable.redb"), [0x5a; 8192]).unwrap();
    let gateway = site.start();
    gateway.wait_for_log("THE STORE CANNOT BE USED");
    wait_for_metric(&gateway, "popgate_store_usable 0");
    drop(gateway);

    // Where nothing is kept, nothing is wrong with it.
    let gateway = crate::support::Gateway::start_expecting(
        2,
        &[
            "--pop3",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--allow-cleartext",
            "--upstream",
            "imap+plain://127.0.0.1:1",
        ],
    );
    assert!(!metrics(&gateway).contains("popgate_store_usable"));
}
