//! Many at once, and a provider that revokes a grant whose refresh token is shown
//! twice.

use crate::site::{Site, dovecot};
use crate::support::AuthorizationServer;

#[test]
fn fifty_logins_here_and_fifty_of_a_command_renew_once() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let site = Site::new(server, &dovecot.plain_url(), 3600, "");
    let gateway = site.start();
    for round in 1..=3 {
        site.end_access();
        let account = site.account();
        let admitted = popgate::accounts::Admitted {
            account,
            by: "phone".to_owned(),
            opener: popgate::accounts::Opener::default(),
        };
        let command = site.accounts();
        std::thread::scope(|threads| {
            let logins: Vec<_> = (0..50)
                .map(|_| threads.spawn(|| site.login(&gateway)))
                .collect();
            let others = (0..50).map(|_| command.credentials(&admitted));
            let shown = site.wait(futures_util::future::join_all(others));
            let first = shown[0].clone().unwrap();
            assert!(shown.into_iter().all(|it| it == Ok(first.clone())));
            for login in logins {
                let answer = login.join().unwrap();
                // One session has the maildrop at a time.
                let is_good = answer.starts_with("+OK") || answer.starts_with("-ERR [IN-USE]");
                assert!(is_good, "{answer}");
            }
        });
        assert_eq!(site.server.refreshes(), round);
        assert_eq!(site.server.together(), 1);
        assert_eq!(site.server.replays(), 0);
        assert_eq!(site.server.live(crate::ALICE), 1);
    }
    assert_eq!(site.account().trouble, None);
}
