use proptest::prelude::*;

use super::*;

fn listing(exists: u32) -> Listing {
    Listing::new(exists, 1000, Needs::default())
}

fn row(seq: u32, uid: u32) -> Row {
    Row {
        seq,
        uid: Some(uid),
        octets: Some(100 + u64::from(uid)),
        ..Row::default()
    }
}

fn uids(listing: Listing) -> Result<Vec<u32>, ListingError> {
    Ok(listing.finish()?.0.iter().map(|entry| entry.uid).collect())
}

#[test]
fn rows_in_any_order_give_the_mailbox_by_uid() {
    let mut listing = listing(3);
    for it in [row(3, 9), row(1, 4), row(2, 7)] {
        listing.row(it).unwrap();
    }
    assert_eq!(uids(listing), Ok(vec![4, 7, 9]));
}

#[test]
fn a_missing_row_is_an_error() {
    for missing in 1..=3 {
        let mut listing = listing(3);
        for seq in (1..=3).filter(|seq| *seq != missing) {
            listing.row(row(seq, seq)).unwrap();
        }
        assert_eq!(uids(listing), Err(ListingError::Incomplete));
    }
}

#[test]
fn an_expunge_meanwhile_moves_the_rows() {
    let mut listing = listing(3);
    listing.row(row(1, 4)).unwrap();
    listing.expunge(1).unwrap();
    listing.row(row(1, 7)).unwrap();
    listing.row(row(2, 9)).unwrap();
    assert_eq!(uids(listing), Ok(vec![7, 9]));
}

#[test]
fn mail_that_arrives_meanwhile_may_be_missing() {
    let mut listing = listing(1);
    listing.row(row(1, 4)).unwrap();
    listing.exists(3).unwrap();
    listing.row(row(3, 9)).unwrap();
    assert_eq!(uids(listing), Ok(vec![4]));
}

#[test]
fn contradictions_are_errors() {
    let mut twice = listing(2);
    twice.row(row(1, 4)).unwrap();
    twice.row(row(2, 4)).unwrap();
    assert_eq!(uids(twice), Err(ListingError::Contradiction));
    let mut changed = listing(1);
    changed.row(row(1, 4)).unwrap();
    assert_eq!(changed.row(row(1, 5)), Err(ListingError::Contradiction));
    assert_eq!(listing(1).row(row(2, 4)), Err(ListingError::NoSuchMessage));
    assert_eq!(listing(1).row(row(0, 4)), Err(ListingError::NoSuchMessage));
    assert_eq!(listing(2).exists(1), Err(ListingError::Contradiction));
    assert_eq!(listing(2).expunge(3), Err(ListingError::NoSuchMessage));
}

#[test]
fn news_of_flags_neither_helps_nor_hurts() {
    let mut listing = listing(1);
    listing
        .row(Row {
            seq: 1,
            flags: Some(fetch::Flags::default()),
            ..Row::default()
        })
        .unwrap();
    listing.row(row(1, 4)).unwrap();
    listing
        .row(Row {
            seq: 1,
            uid: Some(4),
            ..Row::default()
        })
        .unwrap();
    assert_eq!(uids(listing), Ok(vec![4]));
}

fn detailed(seq: u32, uid: u32, details: fetch::Details) -> Row {
    Row {
        details: Some(Box::new(details)),
        ..row(seq, uid)
    }
}

#[test]
fn details_belong_to_their_messages() {
    let needs = Needs {
        arrival: true,
        guid: true,
        gmail_id: true,
        ..Needs::default()
    };
    let mut listing = Listing::new(3, 1000, needs);
    for (seq, uid) in [(1, 9), (2, 4), (3, 7)] {
        let details = fetch::Details {
            arrival: Some(i64::from(uid) - 7),
            guid: (uid != 4).then(|| format!("guid{uid}").into()),
            email_id: Some("not asked for".into()),
            gmail_id: Some(u64::from(uid)),
        };
        listing.row(detailed(seq, uid, details)).unwrap();
    }
    listing.expunge(1).unwrap();
    let (entries, details) = listing.finish().unwrap();
    let told = |entry: &Entry| {
        let place = entry.place;
        (
            details.arrival(place),
            details.guid(place),
            details.gmail_id(place),
        )
    };
    let told: Vec<_> = entries.iter().map(told).collect();
    assert_eq!(
        told,
        [(Some(-3), None, Some(4)), (Some(0), Some("guid7"), Some(7))]
    );
    assert_eq!(details.email_id(0), None);
}

#[test]
fn ids_do_not_grow_without_bound() {
    let needs = Needs {
        email_id: true,
        ..Needs::default()
    };
    let mut listing = Listing::new(1_000_000, 1_000_000, needs);
    listing.details.octets_left = 500;
    let mut learn = |seq: u32| {
        let details = fetch::Details {
            email_id: Some("x".repeat(200).into()),
            ..fetch::Details::default()
        };
        listing.row(detailed(seq, seq, details))
    };
    // The same once more costs nothing.
    assert_eq!([1, 2, 1, 2].map(&mut learn), [Ok(()); 4]);
    assert_eq!(learn(3), Err(ListingError::TooMany));
}

#[test]
fn a_mailbox_does_not_grow_without_bound() {
    assert_eq!(listing(1).exists(u32::MAX), Err(ListingError::TooMany));
}

#[test]
fn sizes_that_do_not_add_up() {
    let mut listing = listing(2);
    for seq in 1..=2 {
        let octets = Some(u64::MAX - 1);
        listing
            .row(Row {
                octets,
                ..row(seq, seq)
            })
            .unwrap();
    }
    assert_eq!(uids(listing), Err(ListingError::Contradiction));
}

/// What a client that keeps a plain list would do.
#[derive(Default)]
struct Plain {
    uids: Vec<u32>,
    due: usize,
}

/// A listing of `exists` messages with UIDs 1, 2, 3, …, of which the first are
/// known.
fn knowing(exists: u32, known: u32) -> Listing {
    let entry = |uid: u32| Entry {
        uid,
        place: uid - 1,
        octets: 100 + u64::from(uid),
    };
    let entries: Vec<Entry> = (1..=known).map(entry).collect();
    let nothing = Needs::default();
    Listing::knowing(
        exists,
        1000,
        nothing,
        &entries,
        Details::new(known, nothing),
    )
    .unwrap()
}

#[test]
fn what_is_known_need_not_be_listed() {
    let mut listing = knowing(5, 3);
    listing.row(row(3, 3)).unwrap();
    listing.row(row(5, 9)).unwrap();
    listing.row(row(4, 7)).unwrap();
    assert_eq!(uids(listing), Ok(vec![1, 2, 3, 7, 9]));
    assert_eq!(uids(knowing(4, 3)), Err(ListingError::Incomplete));
    assert_eq!(uids(knowing(3, 3)), Ok(vec![1, 2, 3]));
}

#[test]
fn what_is_known_must_agree() {
    // Another message has this number.
    assert_eq!(
        knowing(5, 3).row(row(2, 3)),
        Err(ListingError::Contradiction)
    );
    // What is new has a higher UID than all that is known.
    assert_eq!(
        knowing(5, 3).row(row(4, 2)),
        Err(ListingError::Contradiction)
    );
    let other = Row {
        octets: Some(5),
        ..row(2, 2)
    };
    assert_eq!(knowing(5, 3).row(other), Err(ListingError::Changed));
    assert!(
        Listing::knowing(
            0,
            9,
            Needs::default(),
            &[Entry {
                uid: 1,
                place: 0,
                octets: 1
            }],
            Details::new(1, Needs::default())
        )
        .is_none()
    );
}

#[test]
fn needs_are_enough_where_nothing_is_missing() {
    let arrival = Needs {
        arrival: true,
        ..Needs::default()
    };
    let all = Needs {
        arrival: true,
        guid: true,
        email_id: true,
        gmail_id: true,
    };
    assert!(all.cover(arrival) && arrival.cover(arrival) && arrival.cover(Needs::default()));
    assert!(!arrival.cover(all) && !Needs::default().cover(arrival));
}

#[test]
fn a_message_that_vanishes_before_it_was_listed_is_not_known() {
    let mut listing = listing(3);
    listing.row(row(1, 4)).unwrap();
    assert_eq!(listing.vanished(&[7..=7]), Err(ListingError::Unclear));
}

#[test]
fn no_more_vanish_than_there_are() {
    for uids in [[1..=9], [0..=u32::MAX]] {
        let mut listing = knowing(3, 3);
        assert!(listing.vanished(&uids).is_err());
    }
    let mut listing = knowing(3, 3);
    listing.vanished(&[1..=3]).unwrap();
    assert!(listing.vanished(&[1..=1]).is_err());
}

#[test]
fn messages_that_came_later_vanish_without_much_ado() {
    let (listed, later) = (400_000, 400_000);
    let mut listing = Listing::new(listed, u32::MAX, Needs::default());
    for number in 1..=listed {
        listing.row(row(number, number)).unwrap();
    }
    listing.exists(listed + later).unwrap();
    listing.vanished(&[listed + 1..=listed + later]).unwrap();
    assert_eq!(uids(listing).unwrap().len(), listed as usize);
}

#[test]
fn one_message_is_not_taken_out_twice() {
    let mut listing = knowing(3, 3);
    listing.expunge(1).unwrap();
    listing.vanished(&[2..=2]).unwrap();
    assert!(listing.vanished(&[1..=1]).is_err());
    let mut listing = knowing(3, 3);
    listing.vanished(&[2..=2]).unwrap();
    listing.expunge(1).unwrap();
    assert!(listing.vanished(&[1..=1]).is_err());
}

proptest! {
    #[test]
    fn expunges_and_arrivals_at_any_time(
        exists in 1u32..40,
        known in 0u32..40,
        vanish in any::<bool>(),
        steps in prop::collection::vec((any::<bool>(), 0u32..80), 0..80),
    ) {
        let known = known.min(exists);
        let mut listing = knowing(exists, known);
        let mut plain = Plain { uids: (1..=exists).collect(), due: exists as usize };
        // Nobody could tell which one of those it is that vanishes.
        for uid in known + 1..=exists {
            if vanish {
                listing.row(row(uid, uid)).unwrap();
            }
        }
        let mut next_uid = exists + 1;
        for (expunge, choice) in steps {
            let count = plain.uids.len() as u32;
            if expunge && count > 0 {
                let at = (choice % count) as usize;
                match vanish {
                    true => listing.vanished(&[plain.uids[at]..=plain.uids[at]]).unwrap(),
                    false => listing.expunge(at as u32 + 1).unwrap(),
                }
                plain.uids.remove(at);
                plain.due -= usize::from(at < plain.due);
            } else {
                plain.uids.push(next_uid);
                next_uid += 1;
                listing.exists(count + 1).unwrap();
            }
            // A row now and then, by its number of the moment.
            if let Some(uid) = plain.uids.get(choice as usize) {
                listing.row(row(choice + 1, *uid)).unwrap();
            }
        }
        for (at, uid) in plain.uids.iter().enumerate() {
            listing.row(row(at as u32 + 1, *uid)).unwrap();
        }
        let left = uids(listing).unwrap();
        prop_assert_eq!(left, plain.uids[..plain.due].to_vec());
    }
}
