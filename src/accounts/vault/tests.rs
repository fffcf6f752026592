//! What is sealed opens where it was sealed, and nowhere else.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::testing::{key_lines, keys};
use super::*;

fn place() -> Context<'static> {
    Context {
        account: "alice@example.org",
        home: "provider gmail",
        purpose: "refresh",
        generation: 7,
    }
}

/// Every place that differs from [`place`] in one thing, or has its parts cut
/// elsewhere.
fn other_places() -> Vec<Context<'static>> {
    let here = place();
    let mut places = Vec::new();
    for account in [
        "",
        "bob@example.org",
        "alice@example.orgp",
        "Alice@example.org",
    ] {
        places.push(Context { account, ..here });
    }
    for home in [
        "",
        "gateway",
        "provider gmai",
        "provider gmail2",
        "upstream gmail",
    ] {
        places.push(Context { home, ..here });
    }
    for purpose in ["", "access", "password", "refresh\0"] {
        places.push(Context { purpose, ..here });
    }
    for generation in [0, 6, 8, 7 << 8, u64::MAX] {
        places.push(Context { generation, ..here });
    }
    places.push(Context {
        account: "alice@example.orgprovider",
        home: " gmail",
        ..here
    });
    places.push(Context {
        account: here.home,
        home: here.account,
        ..here
    });
    places
}

#[test]
fn a_secret_opens_in_its_own_place_alone() {
    let keys = keys(&[1]);
    let secret = Secret::from("1//refresh-token");
    let sealed = keys.seal(&secret, place()).unwrap();
    assert_eq!(keys.open(&sealed, place()).unwrap(), secret);
    for other in other_places() {
        let opened = keys.open(&sealed, other);
        assert_eq!(opened, Err(VaultError::Damaged), "{other:?}");
        assert_eq!(keys.reseal(&sealed, other), Err(VaultError::Damaged));
    }
}

#[test]
fn no_octet_can_be_changed_added_or_taken_away() {
    let keys = keys(&[1, 2]);
    let secret = Secret::from("token");
    let sealed = keys.seal(&secret, place()).unwrap();
    let text = sealed.0.as_bytes();
    let refused = |octets: Vec<u8>, what: &str| {
        // What is no text is no row of JSON either.
        if let Ok(text) = String::from_utf8(octets) {
            let opened = keys.open(&Sealed(text.clone()), place());
            match opened {
                Err(VaultError::Damaged | VaultError::AnotherKey(_)) => {}
                other => panic!("{what}: {text}: {other:?}"),
            }
        }
    };
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut octets = text.to_vec();
            octets[place] ^= 1 << bit;
            refused(octets, "a bit flipped");
        }
        let mut octets = text.to_vec();
        octets.remove(place);
        refused(octets, "an octet less");
        refused(text[..place].to_vec(), "cut off");
        for more in [b'A', b'.', b'=', b'\n', b' '] {
            let mut octets = text.to_vec();
            octets.insert(place, more);
            refused(octets, "an octet more");
        }
    }
    for more in ["A", "AAAA", "=", ".", "\n"] {
        refused([text, more.as_bytes()].concat(), "more at the end");
    }
}

proptest! {
    #[test]
    fn any_text_comes_back(text: String, account: String, home: String, generation: u64) {
        let keys = keys(&[1]);
        let context = Context { account: &account, home: &home, purpose: "access", generation };
        let secret = Secret::new(text);
        let sealed = keys.seal(&secret, context).unwrap();
        prop_assert_eq!(keys.open(&sealed, context).unwrap(), secret);
    }

    #[test]
    fn no_two_places_are_one(a in context(), b in context()) {
        let keys = keys(&[1]);
        let (a, b) = (borrowed(&a), borrowed(&b));
        let sealed = keys.seal(&Secret::from("token"), a).unwrap();
        let is_same = a.account == b.account && a.home == b.home
            && a.purpose == b.purpose && a.generation == b.generation;
        prop_assert_eq!(keys.open(&sealed, b).is_ok(), is_same);
    }

    #[test]
    fn nothing_else_opens_or_panics(text in "(1p?\\.)?([0-9a-f]{16}\\.)?[-_A-Za-z0-9.]{0,120}") {
        prop_assert!(keys(&[1]).open(&Sealed(text), place()).is_err());
    }
}

type Parts = (String, String, String, u64);

/// Places that are nearly alike.
fn context() -> impl Strategy<Value = Parts> {
    ("[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", 0..2u64)
}

fn borrowed((account, home, purpose, generation): &Parts) -> Context<'_> {
    Context {
        account,
        home,
        purpose,
        generation: *generation,
    }
}

#[test]
fn the_same_secret_is_sealed_differently_each_time() {
    let keys = keys(&[1]);
    let seal = || keys.seal(&Secret::from("token"), place()).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn the_first_key_seals_and_all_open() {
    let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
    let secret = Secret::from("token");
    let sealed = old.seal(&secret, place()).unwrap();
    assert!(old.is_current(&sealed) && !both.is_current(&sealed));
    assert_eq!(both.open(&sealed, place()).unwrap(), secret);
    let id = old.ids().next().unwrap().to_owned();
    let missing = VaultError::AnotherKey(id.clone());
    assert_eq!(new.open(&sealed, place()), Err(missing.clone()));
    assert!(missing.to_string().contains(&id), "{missing}");

    let resealed = both.reseal(&sealed, place()).unwrap();
    assert!(both.is_current(&resealed));
    assert_eq!(new.open(&resealed, place()).unwrap(), secret);
    assert!(matches!(
        old.open(&resealed, place()),
        Err(VaultError::AnotherKey(_))
    ));
    // The id of another key does not help.
    let id = new.ids().next().unwrap();
    let renamed = Sealed(sealed.0.replace(old.ids().next().unwrap(), id));
    assert_eq!(both.open(&renamed, place()), Err(VaultError::Damaged));
}

#[test]
fn keys_are_read_as_they_are_written() {
    let generated = KeyRing::generate().unwrap();
    let other = KeyRing::generate().unwrap();
    assert!(generated.reveal().starts_with("popgate-key:"));
    assert_ne!(generated, other);
    let text = format!(
        "# the new one\n\n{}\r\n  {}  \n\n# the old one\n{}",
        generated.reveal(),
        other.reveal(),
        key_lines(&[1]).trim_end().trim_end_matches('=')
    );
    let ring = KeyRing::parse(&Secret::new(text)).unwrap();
    let all: Vec<_> = ring.ids().collect();
    let first = KeyRing::parse(&generated).unwrap();
    assert_eq!(all[0], first.ids().next().unwrap());
    assert_eq!(all[2], keys(&[1]).ids().next().unwrap());
    // Both alphabets of base64 are the same key.
    let odd = STANDARD.encode([0xfb, 0xff, 0x3e].repeat(11).split_at(32).0);
    let url = odd.replace('+', "-").replace('/', "_");
    assert_ne!(odd, url);
    let ids = [odd, url].map(|text| {
        let ring = KeyRing::parse(&Secret::new(text)).unwrap();
        ring.ids().next().unwrap().to_owned()
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn what_is_no_key_is_refused_in_words_that_repeat_nothing() {
    let key = key_lines(&[1]);
    let key = key.trim();
    let repeated = format!("{key}\n# again\npopgate-key:{key}");
    let cases = [
        ("", "there is no key"),
        ("\n# only a comment\n", "there is no key"),
        ("popgate-key:", "line 1 of the keys: a key has 32 octets"),
        ("hunter2-hunter2", "line 1 of the keys"),
        ("not base64 at all!", "line 1 of the keys: no base64"),
        (&key[4..], "line 1 of the keys: a key has 32 octets"),
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "made at random",
        ),
        (&repeated, "line 3 of the keys: the same key again"),
    ];
    for (text, expected) in cases {
        let error = KeyRing::parse(&Secret::from(text)).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(
            !error.contains("hunter2") && !error.contains(key),
            "{error}"
        );
    }
    let (one, other) = key.split_at(20);
    let broken = KeyRing::parse(&Secret::new(format!("{one}\n{other}")));
    assert!(broken.is_err());
}

#[test]
fn nothing_prints_a_key() {
    let key = KeyRing::generate().unwrap();
    let ring = KeyRing::parse(&key).unwrap();
    let printed = format!("{ring:?} {:?} {key:?}", Opener::default());
    let base64 = key.reveal().trim_start_matches("popgate-key:");
    assert!(!printed.contains(base64), "{printed}");
}
