//! What was got is stored before it is used, whatever the disk and other processes do.

use super::*;

#[tokio::test]
async fn tokens_are_stored_though_nobody_waits_for_them_any_longer() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    endpoint.shut().await;
    {
        let login = accounts.credentials(&admitted);
        tokio::select! {
            _ = login => panic!("the gate is shut"),
            () = endpoint.wait_for(1) => {}
        }
    }
    endpoint.open();
    accounts.renewals.running.close();
    accounts.renewals.running.wait().await;
    let after = again(accounts, &admitted).await;
    assert_eq!(
        accounts
            .at_rest(&after.account, &after.opener)
            .map(|it| token(&it)),
        Ok("access-2".to_owned())
    );
}

#[tokio::test]
async fn a_full_disk_keeps_popgate_from_asking() {
    let endpoint = TokenEndpoint::start().await;
    let folder = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let store = Store::on_disk(folder.path(), &left).unwrap();
    let accounts = Accounts::new(Access::Local(store), at(&endpoint), Arc::default());
    let admitted = enrolled(&accounts, &endpoint, true).await;
    left.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(is_temporary(&accounts.credentials(&admitted).await));
    }
    assert_eq!(endpoint.asked(), 0);
    left.store(i64::MAX, Ordering::SeqCst);
    let shown = accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    assert!(endpoint.is_live());
}

#[tokio::test]
async fn tokens_that_the_disk_does_not_take_are_held_and_not_used() {
    let endpoint = TokenEndpoint::start().await;
    let folder = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let store = Store::on_disk(folder.path(), &left).unwrap();
    let accounts = Accounts::new(Access::Local(store), at(&endpoint), Arc::default());
    let admitted = enrolled(&accounts, &endpoint, true).await;
    // The disk fills up while the provider answers.
    endpoint.shut().await;
    let (outcome, ()) = tokio::join!(accounts.credentials(&admitted), async {
        endpoint.wait_for(1).await;
        left.store(0, Ordering::SeqCst);
        endpoint.open();
    });
    assert!(is_temporary(&outcome), "{outcome:?}");
    for _ in 0..3 {
        assert!(is_temporary(&accounts.credentials(&admitted).await));
        assert_eq!(accounts.store_again().await, 1);
    }
    assert_eq!(endpoint.asked(), 1, "the refresh token was used");
    assert_eq!(refreshes(&accounts, RefreshResult::NotStored), 7);
    left.store(i64::MAX, Ordering::SeqCst);
    assert_eq!(accounts.store_again().await, 0);
    let shown = accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    assert_eq!(endpoint.asked(), 1);
    // And what renews is the new one.
    let newer = accounts.after_refusal(&admitted, &shown).await.unwrap();
    assert_eq!(token(&newer.unwrap()), "access-3");
    assert!(endpoint.is_live());
}

#[tokio::test]
async fn a_new_refresh_token_is_kept_though_the_access_token_is_none() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    let before = stored(accounts).await;
    endpoint.gives(|_, refresh| format!(r#"{{"access_token":"a b","refresh_token":"{refresh}"}}"#));
    assert!(is_temporary(&accounts.credentials(&admitted).await));
    let after = again(accounts, &admitted).await;
    assert_eq!(sealed(&after.account).signed_in, sealed(&before).signed_in);
    // Neither is asked for at once again, nor shown what has ended.
    assert!(is_temporary(&accounts.credentials(&after).await));
    assert_eq!(endpoint.asked(), 1);
    accounts.renewals.pauses.forget(ALICE);
    let shown = accounts.credentials(&after).await.unwrap();
    assert_eq!(token(&shown), "access-3");
    assert!(endpoint.is_live());
    // One that does not end yet does meanwhile.
    accounts.change(ALICE, end_soon).await.unwrap();
    let ending = again(accounts, &admitted).await;
    endpoint.gives(|_, refresh| format!(r#"{{"token_type":"mac","refresh_token":"{refresh}"}}"#));
    let shown = accounts.credentials(&ending).await.unwrap();
    assert_eq!(token(&shown), "access-3");
    assert_eq!(endpoint.asked(), 3);
    accounts.renewals.pauses.forget(ALICE);
    let refused = accounts.after_refusal(&ending, &shown).await.unwrap();
    assert_eq!(token(&refused.unwrap()), "access-5");
    assert!(endpoint.is_live());
}

#[tokio::test]
async fn what_somebody_signed_in_for_is_not_overwritten_by_what_came_before() {
    let endpoint = TokenEndpoint::start().await;
    endpoint.never_rotates();
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    // A command renews the account while the provider is slow to answer.
    let access = accounts.access.clone();
    let command = Accounts::new(access, at(&endpoint), Arc::default());
    endpoint.shut().await;
    let (shown, ()) = tokio::join!(accounts.credentials(&admitted), async {
        endpoint.wait_for(1).await;
        let found = stored(&command).await;
        let mut brought = endpoint.sign_in(false);
        brought.access = "signed-in".into();
        let brought = NewCredential::OAuth(brought);
        command.enrol(found, brought, &Opens).await.unwrap();
        endpoint.open();
    });
    assert_eq!(token(&shown.unwrap()), "signed-in");
    let after = again(accounts, &admitted).await;
    let there = accounts.credentials(&after).await.unwrap();
    assert_eq!(token(&there), "signed-in");
}

#[tokio::test]
async fn the_claim_of_a_process_that_was_killed_keeps_nobody_waiting() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    accounts
        .change(ALICE, |row| {
            if let Credential::OAuth(tokens) = &mut row.credential {
                tokens.claim = Some(Claim {
                    by: "somebody else".to_owned(),
                    since: accounts.renewals.started,
                });
            }
        })
        .await
        .unwrap();
    let shown = accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
}
