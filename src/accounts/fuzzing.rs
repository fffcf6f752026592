//! What the fuzz targets `account_row` and `http_check` drive: accounts as somebody
//! has changed them in the store, and the answers of a service that judges passwords.

use std::sync::{Arc, LazyLock};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::http_check::verdict;
use super::*;
use crate::store::{OpenError, Store};

/// The server that an answer may name.
const SERVER: (&str, &str) = ("192.0.2.1:993", "imaps://192.0.2.1:993");
const REFRESH: &str = "the refresh token";
const ACCESS: &str = "the access token";
const KEY: &str = "popgate-key:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Accounts that are never stored, and a row of one.
static ROW: LazyLock<(Accounts, Vec<u8>)> = LazyLock::new(|| {
    let nowhere = OpenError::InUse { folder: "/".into() };
    let config = Config {
        keys: KeyRing::parse(&KEY.into()).ok(),
        locked_by_password: false,
        providers: Providers::new(),
        gateway_upstream: None,
        alarm: Alarm::default(),
    };
    let accounts = Accounts::new(
        Access::Local(Store::broken(nowhere)),
        config,
        Arc::default(),
    );
    let mut account = Account {
        home: Home::Provider("mail".to_owned()),
        devices: vec![Device {
            id: "a".to_owned(),
            name: "phone".to_owned(),
            created: 1_700_000_000,
            verifier: Verifier::Generated {
                salt: "c2FsdA".to_owned(),
                digest: "ZGlnZXN0".to_owned(),
            },
        }],
        ..Account::nobody("alice@example.org")
    };
    let tokens = PlainTokens {
        refresh: Some(REFRESH.into()),
        access: ACCESS.into(),
        expires_at: 1_800_000_000,
        signed_in: 1_700_000_000,
        refreshed: 1_700_000_000,
    };
    let sealed = accounts.set_tokens(&mut account, &tokens);
    let row = serde_json::to_vec(&account);
    match (sealed, row) {
        (Ok(()), Ok(row)) => (accounts, row),
        failed => panic!("{failed:?}"),
    }
});

/// Changes octets of a stored account, each by three octets of `changes`: where, and
/// what it becomes; then reads it, and opens what is in it.
///
/// # Panics
///
/// Where what comes out is not what went in.
pub fn account_row(changes: &[u8]) {
    let (accounts, row) = &*ROW;
    let mut value = row.clone();
    for change in changes.chunks_exact(3) {
        let [high, low, octet] = *change else {
            continue;
        };
        let place = usize::from(u16::from_be_bytes([high, low])) % value.len();
        value[place] = octet;
    }
    let read = |value: Vec<u8>| {
        let value = value.into();
        account(
            "alice@example.org".to_owned(),
            &AccountRow { version: 1, value },
        )
    };
    let Ok(changed) = read(value) else {
        return;
    };
    let again = serde_json::to_vec(&changed).map(read);
    assert!(again.is_ok_and(|it| it.is_ok_and(|it| it == changed)));
    let opened = accounts.open_credential(&changed, &Opener::default());
    match opened {
        Ok(OpenedCredential::OAuth { refresh, access }) => {
            assert!(refresh.is_none_or(|it| it.reveal() == REFRESH));
            assert_eq!(access.reveal(), ACCESS);
        }
        Ok(OpenedCredential::Provider) | Err(_) => {}
        Ok(other) => panic!("{other:?} was never sealed"),
    }
}

/// Reads lines as the head of an answer.
///
/// # Panics
///
/// Where something is taken from it that no client may be given.
pub fn http_check(head: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in head.split(|octet| *octet == b'\n').take(100) {
        let mut parts = line.splitn(2, |octet| *octet == b':');
        let (name, value) = (parts.next(), parts.next());
        let name = HeaderName::from_bytes(name.unwrap_or_default());
        let value = HeaderValue::from_bytes(value.unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let listed = [(SERVER.0.to_owned(), SERVER.1.to_owned())].into();
    match verdict(&headers, &listed) {
        Ok(HttpVerdict::Admitted {
            user,
            password,
            upstream,
        }) => {
            let password = password.as_ref().map(Secret::reveal);
            for text in user.as_deref().into_iter().chain(password) {
                assert!(!text.contains(char::is_control));
            }
            assert!(upstream.is_none_or(|it| it == SERVER.1));
        }
        Ok(HttpVerdict::Refused { wait }) => {
            assert!(wait.is_none_or(|it| it <= Duration::from_secs(60)));
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
}
