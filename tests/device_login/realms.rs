//! Two servers may each have a user of the same name: what popgate keeps of the one is
//! not the other's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::maildrop::{DeletePolicy, Policy, Update};
use popgate::sasl::Credentials;
use popgate::store::{FolderKey, Store};
use popgate::upstream::Upstream;
use popgate::upstream::imap::Imap;
use popgate::upstream::jmap::Jmap;

use crate::support::messages::plain;
use crate::support::{ScriptedImap, ScriptedJmap, TempStore};

fn upstream(config: config::Upstream, store: &Store) -> Box<dyn Upstream> {
    let store = Some(store.clone());
    match config {
        config::Upstream::Imap(config) => Box::new(Imap::new(config, store)),
        config::Upstream::Jmap(config) => Box::new(Jmap::new(config, store)),
    }
}

/// Alice's messages there; the first `hide` of them are hidden from now on.
async fn visit(upstream: &dyn Upstream, hide: usize) -> (usize, FolderKey) {
    let credentials = Credentials::password("alice", "pw-alice").unwrap();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let policy = Arc::new(Policy {
        delete: DeletePolicy::Hide,
        ..Policy::default()
    });
    let mut session = upstream.login(credentials, client, policy).await.unwrap();
    session.folders().await.unwrap();
    let shown = session.snapshot().await.unwrap().len();
    let (folder, _) = session.kept_as(shown - 1).unwrap();
    if hide > 0 {
        let outcome = session.update(&Update::new((0..hide).collect())).await;
        assert_eq!(outcome.unwrap().removed.len(), hide);
    }
    session.close().await;
    (shown, folder)
}

#[test]
fn what_is_hidden_at_one_server_is_shown_at_the_other() {
    let mail: Vec<Vec<u8>> = (1..=3).map(|number| plain(number, 100)).collect();
    let mail: Vec<&[u8]> = mail.iter().map(Vec::as_slice).collect();
    // Neither has keywords: it is the store that hides.
    let imap = || {
        let builder = ScriptedImap::builder().messages(&mail);
        builder.world(|world| world.keywords = false).start()
    };
    let rights = || serde_json::json!({ "maySetKeywords": false });
    let jmap = || {
        let builder = ScriptedJmap::builder().messages(&mail);
        builder
            .account(|it| it.mailboxes[0].rights = rights())
            .start()
    };
    let (imaps, jmaps) = ([imap(), imap()], [jmap(), jmap()]);
    let imaps = [&imaps[0], &imaps[1]].map(|it| it.plain_url());
    let jmaps = [&jmaps[0], &jmaps[1]].map(|it| it.url());
    for [own, other] in [imaps, jmaps] {
        let overrides = Overrides {
            upstream: Some(Given {
                value: own.clone(),
                origin: Origin::Missing("test"),
            }),
            ..Overrides::default()
        };
        let config = config::load(overrides, Purpose::Check).unwrap();
        let elsewhere = config.servers.at(&other).unwrap();
        let store = TempStore::new();
        let (own, other) = (
            upstream(config.upstream.unwrap(), &store),
            upstream(elsewhere, &store),
        );
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (shown, here) = visit(&*own, 2).await;
            assert_eq!((shown, here.account.as_str()), (3, "alice"));
            let (shown, there) = visit(&*other, 1).await;
            assert_eq!(shown, 3);
            assert_ne!(here.account, there.account);
            assert_eq!(visit(&*own, 0).await.0, 1);
            assert_eq!(visit(&*other, 0).await.0, 2);
        });
    }
}
