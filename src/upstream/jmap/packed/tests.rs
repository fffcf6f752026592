use proptest::prelude::*;
use serde_json::json;

use super::*;

const MAILBOX: &str = "mb";

fn head(count: u32) -> Head {
    Head {
        account: "acc".to_owned(),
        mailbox: MAILBOX.to_owned(),
        state: "s1".to_owned(),
        keywords: true,
        count,
    }
}

/// An Email as text: id, blobId, receivedAt, size, whether it is hidden.
type Plain = (String, String, String, u64, bool);

fn plain(number: usize) -> Plain {
    let hash = format!(
        "{:040x}",
        (number as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C)
    );
    let time = format!(
        "2026-01-{:02}T00:{:02}:{:02}Z",
        1 + number / 3600 % 28,
        number / 60 % 60,
        number % 60
    );
    (
        format!("M{}", &hash[..24]),
        format!("G{hash}"),
        time,
        number as u64,
        number.is_multiple_of(7),
    )
}

fn listing(all: &[Plain]) -> Emails {
    let mut emails = Emails::default();
    for (id, blob_id, received_at, size, is_hidden) in all {
        let email = Email {
            id,
            blob_id,
            received_at,
            size: *size,
            folder: 0,
            is_hidden: *is_hidden,
        };
        assert!(email.fits() && emails.append(email, 0));
    }
    emails.arrange(0..all.len());
    emails
}

fn read(emails: &Emails) -> Vec<Plain> {
    let plain = |it: Email<'_>| {
        (
            it.id.to_owned(),
            it.blob_id.to_owned(),
            it.received_at.to_owned(),
            it.size,
            it.is_hidden,
        )
    };
    emails.iter().map(plain).collect()
}

fn placed((id, blob, received, size, hidden): &Plain, mailboxes: &[&str]) -> Placed {
    let mailboxes: serde_json::Map<_, _> = mailboxes
        .iter()
        .map(|it| ((*it).to_owned(), json!(true)))
        .collect();
    serde_json::from_value(json!({
        "id": id, "blobId": blob, "receivedAt": received, "size": size,
        "keywords": { "$pop3deleted": hidden }, "mailboxIds": mailboxes,
    }))
    .unwrap()
}

#[test]
fn what_was_packed_is_read() {
    let all: Vec<Plain> = (0..2000).map(plain).collect();
    let emails = listing(&all);
    let snapshot = pack(head(0), &emails);
    assert_eq!(Head::of(&snapshot), Some(head(2000)));
    assert_eq!(snapshot.blocks.len(), 2000_usize.div_ceil(FULL));
    // Ids and blobIds of one hash, times near each other.
    assert!(snapshot.octets() < 2000 * 42, "{}", snapshot.octets());
    let (again, kept) = refresh(&snapshot, "s1", &Changes::new()).unwrap();
    assert_eq!(read(&again), read(&emails));
    assert_eq!(kept, snapshot);
    let (_, kept) = refresh(&snapshot, "s2", &Changes::new()).unwrap();
    assert_eq!(Head::of(&kept).unwrap().state, "s2");
    assert_eq!(kept.blocks, snapshot.blocks);
}

#[test]
fn changes_touch_the_blocks_that_they_are_in() {
    let all: Vec<Plain> = (0..2000).map(plain).collect();
    let snapshot = pack(head(0), &listing(&all));
    let order = read(&listing(&all));
    let (gone, moved, shown) = (&order[700], &order[701], &order[702]);
    let mut now_shown = shown.clone();
    now_shown.4 = !shown.4;
    let new = plain(5000);
    let elsewhere = plain(5001);
    let changes = Changes::from([
        (gone.0.as_str().into(), None),
        (moved.0.as_str().into(), Some(placed(moved, &["other"]))),
        (
            shown.0.as_str().into(),
            Some(placed(&now_shown, &["other", MAILBOX])),
        ),
        (new.0.as_str().into(), Some(placed(&new, &[MAILBOX]))),
        (
            elsewhere.0.as_str().into(),
            Some(placed(&elsewhere, &["other"])),
        ),
        ("never seen".into(), None),
    ]);
    let (emails, kept) = refresh(&snapshot, "s2", &changes).unwrap();
    let mut expected = order.clone();
    expected[702] = now_shown;
    expected.drain(700..702);
    expected.push(new);
    assert_eq!(read(&emails), read(&listing(&expected)));
    let changed = |at: &&u32| kept.blocks.get(at) != snapshot.blocks.get(at);
    let changed: Vec<u32> = kept.blocks.keys().filter(changed).copied().collect();
    // That of 700 to 702, and one for what is new.
    assert_eq!(changed, [1, 4]);
    // The same changes once more change nothing.
    let (again, same) = refresh(&kept, "s2", &changes).unwrap();
    assert_eq!(read(&again), read(&emails));
    assert_eq!(same, kept);
}

#[test]
fn many_small_blocks_become_few() {
    let all: Vec<Plain> = (0..10 * FULL).map(plain).collect();
    let mut snapshot = pack(head(0), &listing(&all));
    for number in 0..40 {
        let new = plain(100_000 + number);
        let changes = Changes::from([(new.0.as_str().into(), Some(placed(&new, &[MAILBOX])))]);
        snapshot = refresh(&snapshot, "s", &changes).unwrap().1;
        assert!(snapshot.blocks.len() < 40);
    }
    let nothing = Changes::from_iter(all.iter().map(|it| (it.0.as_str().into(), None)));
    let (emails, kept) = refresh(&snapshot, "s", &nothing).unwrap();
    assert_eq!((emails.len(), Head::of(&kept).unwrap().count), (40, 40));
}

#[test]
fn what_is_damaged_is_none() {
    let all: Vec<Plain> = (0..20).map(plain).collect();
    let snapshot = pack(head(0), &listing(&all));
    let octets = snapshot.blocks[&0].octets().clone();
    let with = |octets: Vec<u8>| Snapshot {
        head: snapshot.head.clone(),
        blocks: BTreeMap::from([(0, Block::new(octets))]),
    };
    for end in 0..octets.len() {
        assert!(
            refresh(&with(octets[..end].to_vec()), "s", &Changes::new()).is_none(),
            "{end}"
        );
    }
    // A whole listing, but of fewer or of none.
    let missing = Snapshot {
        head: snapshot.head.clone(),
        blocks: BTreeMap::new(),
    };
    assert!(refresh(&missing, "s", &Changes::new()).is_none());
    for head in [
        &b""[..],
        b"\x02\0\0\0\0\0",
        &snapshot.head[..snapshot.head.len() - 1],
    ] {
        let snapshot = Snapshot {
            head: head.to_vec().into(),
            blocks: snapshot.blocks.clone(),
        };
        assert!(
            refresh(&snapshot, "s", &Changes::new()).is_none(),
            "{head:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_names_are_read_as_they_were(
        rows in prop::collection::hash_map(
            "[a-f0-9]{1,20}|[ -~äß]{1,60}", ("[a-f0-9]{1,40}|.{1,60}", "[0-9TZ:.-]{1,30}", any::<u64>(), any::<bool>()), 0..40,
        )
    ) {
        let all: Vec<Plain> = rows
            .into_iter()
            .map(|(id, (blob, received, size, hidden))| (id, blob, received, size, hidden))
            .collect();
        let emails = listing(&all);
        let snapshot = pack(head(0), &emails);
        let (again, _) = refresh(&snapshot, "s1", &Changes::new()).unwrap();
        prop_assert_eq!(read(&again), read(&emails));
    }

    #[test]
    fn noise_is_no_snapshot(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let snapshot = Snapshot {
            head: head(3).write().into(),
            blocks: BTreeMap::from([(0, Block::new(octets))]),
        };
        // Whatever it is: no panic.
        let _ = refresh(&snapshot, "s", &Changes::new());
    }
}
