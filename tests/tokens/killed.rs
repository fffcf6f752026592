//! A crash while tokens are renewed.

use crate::site::{Site, dovecot};
use crate::support::AuthorizationServer;

/// So many times; each time at another moment.
const CRASHES: u64 = 200;

#[test]
fn tokens_outlive_two_hundred_crashes() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    // The old refresh token stays good: whatever is on disk must be a good one.
    server.set(serde_json::json!({"rotation": "lenient"}));
    let site = Site::new(server, &dovecot.plain_url(), 3600, "");
    let mut renewed = 0;
    for crash in 0..CRASHES {
        site.end_access();
        let before = site.server.refreshes();
        let mut gateway = site.start();
        let mut pop3 = gateway.pop3();
        pop3.expect_ok(&format!("USER {}", crate::ALICE));
        pop3.send(&format!("PASS {}", site.password.reveal()));
        // From before the request to after the login.
        std::thread::sleep(std::time::Duration::from_micros(crash * 300));
        gateway.kill();
        // What is there opens, and is whole.
        let account = site.account();
        assert_eq!(account.devices.len(), 1);
        assert_eq!(account.trouble, None);
        assert!(
            site.accounts()
                .open_credential(&account, &Default::default())
                .is_ok()
        );
        renewed += site.server.refreshes() - before;
    }
    assert!(renewed > 0, "no crash came after a request");
    site.end_access();
    let gateway = site.start();
    assert_eq!(site.read(&gateway), 2);
}
