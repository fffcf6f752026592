//! Who is admitted, and what it costs to refuse.

#![allow(clippy::unwrap_used)]

use super::super::testing::Fixture;
use super::*;

fn secret(text: &str) -> Secret {
    Secret::from(text)
}

#[tokio::test]
async fn a_generated_password_admits_however_it_is_typed() {
    let it = Fixture::new();
    let password = it.account("alice@example.org").await;
    let text = password.reveal();
    let written = [
        text.to_owned(),
        text.to_uppercase(),
        text.replace('-', ""),
        text.replace('-', " "),
        format!("{text} "),
    ];
    for typed in written {
        let admitted = it.admitted("Alice@Example.ORG", &Secret::new(typed)).await;
        assert_eq!(admitted.account.address, "alice@example.org");
        assert_eq!(admitted.by, admitted.account.devices[0].id);
    }
    for wrong in [
        "",
        "x",
        &text[1..],
        &format!("{text}a"),
        &text.replace(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'k', 'm', 'n'], "2"),
    ] {
        let verdict = it.login("alice@example.org", &secret(wrong)).await;
        assert!(matches!(verdict, Verdict::Refused), "{wrong}: {verdict:?}");
    }
    assert!(matches!(
        it.login("bob@example.org", &password).await,
        Verdict::Unknown
    ));
}
