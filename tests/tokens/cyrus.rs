//! The same by JMAP.

use crate::ALICE;
use crate::site::Site;
use crate::support::{AuthorizationServer, Cyrus, messages};

#[test]
fn an_account_reads_its_mail_by_jmap_with_tokens_that_are_renewed() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let cyrus = Cyrus::with_tokens_of(&server).unwrap();
    for number in 1..=2 {
        cyrus.append("alice", "INBOX", &messages::plain(number, 500));
    }
    let site = Site::new(server, &cyrus.jmap_url(), 3600, "");
    let gateway = site.start();
    assert_eq!(site.read(&gateway), 2);
    site.end_access();
    assert_eq!(site.read(&gateway), 2);
    assert_eq!(site.server.refreshes(), 1);
    site.server.revoke(ALICE);
    site.end_access();
    let refused = site.login(&gateway);
    assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
    site.sign_in_again();
    assert_eq!(site.read(&gateway), 2);
}
