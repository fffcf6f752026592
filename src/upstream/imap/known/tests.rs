use std::collections::BTreeMap;

use proptest::prelude::*;

use super::packing::{unzigzag, zigzag};
use super::*;
use crate::upstream::imap::fetch;
use crate::upstream::snapshots::Block;

const NOTHING: Needs = Needs {
    arrival: false,
    guid: false,
    email_id: false,
    gmail_id: false,
};

/// A mailbox by UID.
type Mailbox = BTreeMap<u32, (u64, fetch::Details)>;

/// As a listing gives it, some of the places taken by messages that have gone.
fn listed(mailbox: &Mailbox, needs: Needs) -> (Vec<Entry>, Details) {
    let count = u32::try_from(mailbox.len()).unwrap();
    let mut details = Details::new(2 * count, needs);
    let mut entries = Vec::new();
    for ((uid, (octets, told)), place) in mailbox.iter().zip((0..).step_by(2)) {
        details.learn(place as usize, told.clone()).unwrap();
        let (uid, octets) = (*uid, *octets);
        entries.push(Entry { uid, place, octets });
    }
    (entries, details)
}

fn point() -> Point {
    Point {
        uid_validity: 1_700_000_000,
        uid_next: Some(77),
        highest_modseq: None,
    }
}

fn known(mailbox: &Mailbox, needs: Needs) -> Known {
    let (entries, details) = listed(mailbox, needs);
    Known::new(point(), needs, &entries, &details).unwrap()
}

/// What is known, as a mailbox. Everything that can be asked agrees with it.
fn unpacked(known: &Known) -> Mailbox {
    let (entries, details) = known.listing().unwrap();
    assert_eq!(entries.len(), known.len() as usize);
    let last = entries.last().map_or(0, |entry| entry.uid);
    assert_eq!(known.highest_uid(), last);
    assert_eq!(known.uid_at(0), None);
    assert_eq!(known.uid_at(known.len() + 1), None);
    let step = 1 + entries.len() / 20;
    for (seq, entry) in (1..).zip(&entries).step_by(step) {
        assert_eq!(known.uid_at(seq), Some(entry.uid));
        assert_eq!(known.size_of(entry.uid), Some(entry.octets));
    }
    let rows = entries.iter().map(|entry| {
        let row = Row::new(entry, &details);
        (entry.uid, (entry.octets, row.details))
    });
    rows.collect()
}

/// Messages whose UIDs lie `gap` apart on the average.
fn many(count: u32, first: u32, gap: u32) -> Mailbox {
    let mut uid = first;
    let rows = (0..count).map(|it| {
        let row = (
            uid,
            (u64::from(it) * 977 % 50_000, fetch::Details::default()),
        );
        uid += 1 + it.wrapping_mul(2_654_435_761) % (2 * gap - 1);
        row
    });
    rows.collect()
}

fn octets(known: &Known) -> u64 {
    known.snapshot().octets()
}

#[test]
fn a_message_takes_four_or_five_octets() {
    let known = known(&many(100_000, 1, 1), NOTHING);
    assert!(octets(&known) < 410_000, "{}", octets(&known));
    let sparse = self::known(&many(100_000, 1, 40), NOTHING);
    assert!(octets(&sparse) < 460_000, "{}", octets(&sparse));
    assert!(sparse.snapshot().blocks.len() <= 30);
}

#[test]
fn what_arrives_or_goes_touches_its_block_only() {
    let mailbox = many(20_000, 1, 3);
    let before = known(&mailbox, NOTHING);
    let uids: Vec<u32> = mailbox.keys().copied().collect();
    let new = Mailbox::from([(u32::MAX, (5, fetch::Details::default()))]);
    let (entries, details) = listed(&new, NOTHING);
    let after = before
        .with(&entries, &details, &[uids[5000]..=uids[5001]])
        .unwrap();
    assert_eq!(after.len(), 19_999);
    let (before, after) = (before.snapshot(), after.snapshot());
    let same = after
        .blocks
        .iter()
        .filter(|(at, block)| before.blocks.get(at) == Some(block))
        .count();
    assert_eq!((before.blocks.len(), after.blocks.len(), same), (5, 5, 3));
}

#[test]
fn arrivals_bit_by_bit_fill_blocks() {
    let mut known = known(&Mailbox::new(), NOTHING);
    let all = many(10_000, 1, 1);
    let (entries, details) = listed(&all, NOTHING);
    for new in entries.chunks(97) {
        known = known.with(new, &details, &[]).unwrap();
    }
    let lengths = known.blocks.values().map(|it| it.rows.octets().len());
    let lengths: Vec<usize> = lengths.collect();
    let (last, full) = lengths.split_last().unwrap();
    assert_eq!(full.len(), 2);
    assert!(full.iter().all(|it| (FULL - 5..=FULL).contains(it)));
    assert!(*last < FULL);
    // And removals empty them again.
    for first in (1..=10_000u32).step_by(100) {
        let gone = [first..=first + 84];
        known = known.with(&[], &details, &gone).unwrap();
    }
    assert_eq!(known.len(), 1500);
    assert_eq!(known.blocks.len(), 1);
    let all = [1..=u32::MAX];
    known = known.with(&[], &details, &all).unwrap();
    assert_eq!((known.len(), known.blocks.len()), (0, 0));
}

#[test]
fn uids_of_all_sizes_and_details_of_all_kinds() {
    let needs = Needs {
        arrival: true,
        guid: true,
        email_id: true,
        gmail_id: true,
    };
    let told = |arrival: Option<i64>, guid: &str, email_id: Option<&str>, gmail_id| {
        let details = fetch::Details {
            arrival,
            guid: Some(guid.into()),
            email_id: email_id.map(Box::from),
            gmail_id,
        };
        (123, details)
    };
    let mailbox = Mailbox::from([
        (1, told(Some(0), "a", None, None)),
        (
            2,
            told(Some(i64::MAX), &"x".repeat(255), Some("M1"), Some(1)),
        ),
        (4096, told(None, "\u{fc}", None, Some(u64::MAX))),
        (u32::MAX - 1, told(Some(i64::MIN + 1), "b", Some("é"), None)),
        (u32::MAX, (0, fetch::Details::default())),
    ]);
    let known = known(&mailbox, needs);
    assert_eq!(unpacked(&known), mailbox);
    assert_eq!(unpacked(&Known::read(&known.snapshot()).unwrap()), mailbox);
    assert_eq!(known.size_of(3), None);
    assert_eq!(known.size_of(0), None);
    // What was not asked for is not kept.
    let without = self::known(&mailbox, NOTHING);
    assert!(
        unpacked(&without)
            .values()
            .all(|it| it.1 == fetch::Details::default())
    );
}

#[test]
fn what_is_no_folder_is_refused() {
    let details = Details::new(9, NOTHING);
    let of = |rows: &[(u32, u64)]| {
        let entry = |row: &(u32, u64)| Entry {
            uid: row.0,
            place: 0,
            octets: row.1,
        };
        let entries: Vec<Entry> = rows.iter().map(entry).collect();
        Known::new(point(), NOTHING, &entries, &details)
    };
    assert!(of(&[(1, 1), (2, u64::MAX - 1)]).is_some());
    assert!(of(&[(0, 1)]).is_none());
    assert!(of(&[(2, 1), (1, 1)]).is_none());
    assert!(of(&[(2, 1), (2, 1)]).is_none());
    assert!(of(&[(1, 2), (2, u64::MAX - 1)]).is_none());
}

#[test]
fn what_is_no_snapshot_is_not_read() {
    let known = known(&many(5000, 1, 2), NOTHING);
    let good = known.snapshot();
    assert_eq!(Known::read(&good), Some(known));
    let changed = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        assert_eq!(Known::read(&snapshot), None);
    };
    let last = *good.blocks.keys().next_back().unwrap();
    changed(&|it| it.head = Default::default());
    changed(&|it| it.head = [&good.head[..], &[0]].concat().into());
    changed(&|it| it.head = good.head.slice(..good.head.len() - 1));
    changed(&|it| it.head = [&[FORM + 1], &good.head[1..]].concat().into());
    changed(&|it| it.head = [&[FORM, 16], &good.head[2..]].concat().into());
    changed(&|it| drop(it.blocks.remove(&last)));
    changed(&|it| drop(it.blocks.insert(last, Block::new(Vec::new()))));
    // The first block reaches over the second.
    changed(&|it| drop(it.blocks.insert(4096, good.blocks[&last].clone())));
    let cut = good.blocks[&last].octets().slice(..1000);
    changed(&|it| drop(it.blocks.insert(last, Block::new(cut.clone()))));
    // A UID beyond the highest, numbers beyond 64 bits.
    for octets in [
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0][..],
        &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        &[
            0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
    ] {
        changed(&|it| drop(it.blocks.insert(last, Block::new(octets.to_vec()))));
    }
}

fn any_needs() -> impl Strategy<Value = Needs> {
    (0u8..16).prop_map(|octet| needs_of(octet).unwrap())
}

fn any_details() -> impl Strategy<Value = fetch::Details> {
    let id = || proptest::option::of("[a-z0-9]{1,40}".prop_map(String::into_boxed_str));
    let arrival = proptest::option::of(i64::MIN + 1..);
    let gmail_id = proptest::option::of(1u64..);
    (arrival, id(), id(), gmail_id).prop_map(|(arrival, guid, email_id, gmail_id)| fetch::Details {
        arrival,
        guid,
        email_id,
        gmail_id,
    })
}

/// A few messages, near each other or not.
fn any_mailbox() -> impl Strategy<Value = Mailbox> {
    let uid = prop_oneof![1u32..60, 4000u32..4200, 1u32.., u32::MAX - 20..=u32::MAX];
    let octets = prop_oneof![0u64..100_000, 0u64..1 << 50];
    prop::collection::btree_map(uid, (octets, any_details()), 0..25)
}

/// What the needs leave of the details.
fn reduced(mailbox: &Mailbox, needs: Needs) -> Mailbox {
    let mut mailbox = mailbox.clone();
    for (_, details) in mailbox.values_mut() {
        details.arrival = details.arrival.filter(|_| needs.arrival);
        details.guid = details.guid.take().filter(|_| needs.guid);
        details.email_id = details.email_id.take().filter(|_| needs.email_id);
        details.gmail_id = details.gmail_id.filter(|_| needs.gmail_id);
    }
    mailbox
}

fn any_ranges() -> impl Strategy<Value = Vec<RangeInclusive<u32>>> {
    let range = prop_oneof![
        (0u32..60, 0u32..10),
        (4000u32..4200, 0u32..50),
        (0u32.., 0u32..),
    ];
    let range = range.prop_map(|(first, more)| first..=first.saturating_add(more));
    prop::collection::vec(range, 0..6)
}

proptest! {
    #[test]
    fn a_mailbox_comes_out_as_it_went_in(mailbox in any_mailbox(), needs in any_needs()) {
        let known = known(&mailbox, needs);
        prop_assert_eq!(unpacked(&known), reduced(&mailbox, needs));
        prop_assert_eq!(Known::read(&known.snapshot()), Some(known));
    }

    #[test]
    fn changes_are_as_good_as_a_new_listing(
        mailbox in any_mailbox(),
        needs in any_needs(),
        changes in prop::collection::vec((any_mailbox(), any_ranges()), 1..5),
    ) {
        let mut known = known(&mailbox, needs);
        let mut mailbox = mailbox;
        for (new, removed) in changes {
            let (entries, details) = listed(&new, needs);
            known = known.with(&entries, &details, &removed).unwrap();
            mailbox.extend(new);
            mailbox.retain(|uid, _| !removed.iter().any(|range| range.contains(uid)));
            prop_assert_eq!(unpacked(&known), reduced(&mailbox, needs));
            prop_assert_eq!(Known::read(&known.snapshot()), Some(known.clone()));
        }
    }

    #[test]
    fn no_octets_make_it_panic(
        head in prop::collection::vec(any::<u8>(), 0..20),
        needs in 0u8..16,
        blocks in prop::collection::btree_map(
            prop_oneof![Just(0), any::<u32>()],
            prop::collection::vec(any::<u8>(), 0..40),
            0..4,
        ),
    ) {
        let good_head = [&[FORM, needs][..], &head].concat();
        let blocks = blocks.into_iter().map(|(at, octets)| (at, Block::new(octets)));
        let snapshot = Snapshot { head: good_head.into(), blocks: blocks.collect() };
        if let Some(known) = Known::read(&snapshot) {
            unpacked(&known);
        }
    }

    #[test]
    fn numbers_come_out_as_they_went_in(number: u64) {
        let mut packed = Vec::new();
        put(&mut packed, number);
        prop_assert_eq!(take(&mut &packed[..]), Some(number));
        prop_assert_eq!(unzigzag(zigzag(number)), number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn changes_of_large_mailboxes(
        count in 0u32..10_000,
        gap in 1u32..50,
        changes in prop::collection::vec((0u32..6000, 1u32..200_000, 1u32..30, any_ranges()), 1..4),
    ) {
        let mut mailbox = many(count, 1, gap);
        let mut known = known(&mailbox, NOTHING);
        for (count, first, gap, mut removed) in changes {
            let new = many(count, first, gap);
            removed.push(first / 2..=first / 2 + 5000);
            let (entries, details) = listed(&new, NOTHING);
            known = known.with(&entries, &details, &removed).unwrap();
            mailbox.extend(new);
            mailbox.retain(|uid, _| !removed.iter().any(|range| range.contains(uid)));
            prop_assert!(unpacked(&known) == mailbox);
            let lengths = known.blocks.values().map(|it| it.rows.octets().len());
            let lengths: Vec<usize> = lengths.collect();
            prop_assert!(lengths.iter().all(|length| *length <= FULL));
            prop_assert!(lengths.windows(2).all(|pair| pair[0] + pair[1] > SMALL));
            prop_assert!(Known::read(&known.snapshot()).as_ref() == Some(&known));
        }
    }
}
