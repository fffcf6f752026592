//! Who gets a connection that rests, and what the next session sees on it.

use super::*;

#[tokio::test]
async fn the_next_login_with_the_same_credentials_takes_over() {
    let server = builder(2).start();
    let site = Site::new(&server);
    let first = site.poll().await;
    assert_eq!((first.len(), site.resting()), (2, 1));
    let asked = server.commands_starting("CAPABILITY").len();
    for _ in 0..5 {
        assert_eq!(site.poll().await, first);
    }
    assert_eq!((server.connections(), logins(&server)), (1, 1));
    assert_eq!(server.commands_starting("LOGOUT").len(), 0);
    assert_eq!(server.commands_starting("CAPABILITY").len(), asked);
    assert_eq!(site.resting(), 1);
}

#[tokio::test]
async fn a_session_that_ends_without_quit_lets_its_connection_rest() {
    let server = builder(2).start();
    let site = Site::new(&server);
    let (mut session, _) = site.open().await;
    assert_eq!(
        read(&mut session, 0).await.unwrap(),
        messages::plain(1, 300)
    );
    session.close().await;
    site.poll().await;
    assert_eq!(server.connections(), 1);
    assert_eq!(server.uids("INBOX"), [1, 2]);
}

#[tokio::test]
async fn other_credentials_always_go_upstream() {
    let server = builder(1).announcing("IDLE").start();
    let site = Site::new(&server);
    site.poll().await;
    for password in ["", "pw-alic", "pw-alice ", "PW-ALICE", "pw-bob"] {
        let before = logins(&server);
        let credentials = Credentials::Password {
            user: "alice".to_owned(),
            authorize_as: None,
            password: password.into(),
        };
        let refused = site.try_open(credentials).await.err().unwrap();
        if password.is_empty() {
            continue;
        }
        assert!(
            matches!(refused, UpstreamError::Authentication),
            "{refused:?}"
        );
        assert_eq!(logins(&server), before + 1, "{password:?}");
    }
    assert_eq!(site.resting(), 1);
    let before = server.connections();
    site.poll().await;
    assert_eq!(server.connections(), before);
}

#[tokio::test]
async fn nobody_else_gets_it() {
    let server = builder(1).start();
    let mut config = config(server.port());
    config.send_client_address = true;
    let site = Site::with(config);
    site.poll().await;
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8));
    let token = Credentials::Bearer {
        user: "alice".to_owned(),
        token: "tok-alice".into(),
    };
    let other_policy = policy(DeletePolicy::Refuse);
    for (credentials, policy, client) in [
        (password("bob"), &site.policy, CLIENT),
        (token, &site.policy, CLIENT),
        (password("alice"), &other_policy, CLIENT),
        (password("alice"), &site.policy, elsewhere),
    ] {
        let before = server.connections();
        let session = site.try_login(credentials, policy, client).await;
        drop(session.unwrap());
        assert_eq!(server.connections(), before + 1);
        assert_eq!(site.resting(), 1);
    }
    // The policy counts by what it says, not by where it lies in memory.
    let before = server.connections();
    let same = policy(DeletePolicy::Expunge);
    drop(
        site.try_login(password("alice"), &same, CLIENT)
            .await
            .unwrap(),
    );
    assert_eq!(server.connections(), before);
}

#[tokio::test]
async fn a_user_and_who_logs_in_for_that_user_are_not_the_same() {
    let server = builder(1).start();
    let site = Site::new(&server);
    let authorized = |authorize_as: Option<&str>| Credentials::Password {
        user: "alice".to_owned(),
        authorize_as: authorize_as.map(str::to_owned),
        password: "pw-alice".into(),
    };
    for (number, authorize_as) in [None, Some("alice"), Some("bob")].into_iter().enumerate() {
        let (mut session, _) = site.try_open(authorized(authorize_as)).await.unwrap();
        session.close().await;
        assert_eq!(server.connections(), number + 1);
    }
}

#[tokio::test]
async fn exactly_one_of_two_logins_gets_it() {
    let server = builder(1).start();
    let site = Site::new(&server);
    site.poll().await;
    let (mut one, mut other) = tokio::join!(site.open(), site.open());
    assert_eq!(server.connections(), 2);
    assert_eq!(ids(&one.1), ids(&other.1));
    read(&mut one.0, 0).await.unwrap();
    read(&mut other.0, 0).await.unwrap();
    one.0.close().await;
    other.0.close().await;
    assert_eq!(site.resting(), 2);
    let _both = tokio::join!(site.open(), site.open());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn what_other_clients_did_is_seen_at_once() {
    for idle in ["", "IDLE"] {
        let server = builder(3).announcing(idle).start();
        let site = Site::new(&server);
        let before = site.poll().await;
        server.world().inbox().append(messages::plain(4, 300));
        let with_new = site.poll().await;
        assert_eq!((with_new.len(), &with_new[..3]), (4, &before[..]), "{idle}");
        server.world().inbox().remove(2);
        let without = site.poll().await;
        assert_eq!(without, [&with_new[..1], &with_new[2..]].concat(), "{idle}");
        let marked = |on| {
            server
                .world()
                .inbox()
                .message(3)
                .unwrap()
                .set_flag("\\Deleted", on)
        };
        marked(true);
        assert_eq!(site.poll().await.len(), 2, "{idle}");
        marked(false);
        assert_eq!(site.poll().await, without, "{idle}");
        assert_eq!(server.connections(), 1, "{idle}");
    }
}

#[tokio::test]
async fn messages_are_removed_on_a_connection_that_was_taken_over() {
    let server = builder(4).announcing("IDLE").start();
    let site = Site::new(&server);
    let before = site.poll().await;
    let (mut session, _) = site.open().await;
    assert_eq!(
        read(&mut session, 1).await.unwrap(),
        messages::plain(2, 300)
    );
    remove(&mut session, &[1, 2]).await;
    session.close().await;
    assert_eq!(server.uids("INBOX"), [1, 4]);
    let left = site.poll().await;
    assert_eq!(left, [before[0].as_str(), before[3].as_str()]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn another_uid_validity_makes_other_messages() {
    let server = builder(2).announcing("IDLE").start();
    let site = Site::new(&server);
    let before = site.poll().await;
    server.world().inbox().uid_validity += 1;
    let after = site.poll().await;
    assert!(after.len() == 2 && after[0] != before[0], "{after:?}");
}

#[tokio::test]
async fn names_that_are_known_are_not_asked_for_again() {
    let server = builder(1)
        .world(|world| {
            world
                .mailboxes
                .push(support::scripted_imap::Mailbox::new("Work", None))
        })
        .start();
    let mut site = Site::new(&server);
    site.policy = Arc::new(Policy {
        folders: vec!["Work".parse().unwrap(), "INBOX".parse().unwrap()],
        delete: DeletePolicy::Expunge,
        ..Policy::default()
    });
    let first = site.poll().await;
    let asked = |server: &ScriptedImap| {
        server.commands_starting("NAMESPACE").len() + server.commands_starting("LIST").len()
    };
    let before = asked(&server);
    assert!(before > 0);
    assert_eq!(site.poll().await, first);
    assert_eq!(asked(&server), before);
    // One that is no longer there is looked for anew.
    server
        .world()
        .mailboxes
        .retain(|mailbox| mailbox.name != "Work");
    let gone = site.try_open(password("alice")).await.err().unwrap();
    assert!(matches!(gone, UpstreamError::NoFolder(_)), "{gone:?}");
    assert!(asked(&server) > before);
}
