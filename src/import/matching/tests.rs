use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// A message: what it is, and how large. Size and header are all that is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mail {
    header: u32,
    size: u64,
}

fn mail(header: u32, size: u64) -> Mail {
    Mail { header, size }
}

/// 0 is a header with nothing in it.
fn hash(mail: &Mail) -> Option<HeaderHash> {
    let header = format!("Message-ID: {}\r\n", mail.header);
    let header = if mail.header == 0 { "" } else { &header };
    HeaderHash::of(header.as_bytes())
}

fn sizes(mails: &[Mail]) -> Vec<u64> {
    mails.iter().map(|mail| mail.size).collect()
}

fn hashes(mails: &[Mail], places: &[Place]) -> HashMap<Place, HeaderHash> {
    let known = |place: &Place| Some((*place, hash(&mails[*place])?));
    places.iter().filter_map(known).collect()
}

/// Both phases, as an import goes through them.
fn matched(old: &[Mail], new: &[Mail]) -> Matching {
    let compared = Sizes::compare(sizes(old), sizes(new));
    let samples = compared.samples();
    let agree = samples.iter().all(|place| {
        let old = hash(&old[*place]);
        old.is_some() && old == hash(&new[*place])
    });
    finish(compared.judged(agree), old, new)
}

fn matched_by_header(old: &[Mail], new: &[Mail]) -> Matching {
    finish(
        Sizes::compare(sizes(old), sizes(new)).judged(false),
        old,
        new,
    )
}

fn finish(doubtful: Doubtful, old: &[Mail], new: &[Mail]) -> Matching {
    let (of_old, of_new) = doubtful.headers_needed();
    let (of_old, of_new) = (hashes(old, of_old), hashes(new, of_new));
    doubtful.by_header(&of_old, &of_new)
}

fn pairs(matching: &Matching) -> Vec<(Place, Place, By)> {
    let pairs = matching.pairs.iter();
    pairs.map(|pair| (pair.old, pair.new, pair.by)).collect()
}

/// Every place stands in one list of its side, once, and all are in order.
fn assert_whole(matching: &Matching, old: usize, new: usize) {
    let mut of_old: Vec<Place> = matching.pairs.iter().map(|pair| pair.old).collect();
    let mut of_new: Vec<Place> = matching.pairs.iter().map(|pair| pair.new).collect();
    assert!(of_old.is_sorted());
    for list in [
        &matching.unmatched_old,
        &matching.unmatched_new,
        &matching.ambiguous_old,
        &matching.ambiguous_new,
    ] {
        assert!(list.is_sorted());
    }
    of_old.extend(&matching.unmatched_old);
    of_old.extend(&matching.ambiguous_old);
    of_new.extend(&matching.unmatched_new);
    of_new.extend(&matching.ambiguous_new);
    of_old.sort_unstable();
    of_new.sort_unstable();
    assert!(of_old.into_iter().eq(0..old));
    assert!(of_new.into_iter().eq(0..new));
}

#[test]
fn a_copied_maildrop_is_matched_by_size_with_few_headers() {
    let old: Vec<Mail> = (1..=100).map(|n| mail(n, 1000 + u64::from(n))).collect();
    let mut new = old.clone();
    new.push(mail(200, 7));
    let compared = Sizes::compare(sizes(&old), sizes(&new));
    assert_eq!(
        compared.samples(),
        [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    );
    let doubtful = compared.judged(true);
    assert_eq!(doubtful.headers_needed(), (&[][..], &[][..]));
    let matching = matched(&old, &new);
    assert_eq!(matching.pairs.len(), 100);
    assert!(matching.pairs.iter().all(|pair| pair.by == By::Size));
    assert_eq!(matching.unmatched_new, [100]);
}

#[test]
fn samples_of_few_messages_are_all_of_them() {
    for count in 0..5 {
        let of = || (0..count as u64).collect::<Vec<_>>();
        let samples = Sizes::compare(of(), of()).samples();
        let expected: &[&[Place]] = &[&[], &[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3]];
        assert_eq!(samples, expected[count]);
    }
}

#[test]
fn sizes_are_believed_up_to_the_first_that_differs() {
    let old = [mail(1, 10), mail(2, 20), mail(3, 30), mail(4, 40)];
    let new = [mail(1, 10), mail(3, 30), mail(4, 40), mail(5, 50)];
    let matching = matched(&old, &new);
    assert_eq!(
        pairs(&matching),
        [(0, 0, By::Size), (2, 1, By::Header), (3, 2, By::Header)]
    );
    assert_eq!(matching.unmatched_old, [1]);
    assert_eq!(matching.unmatched_new, [3]);
}

#[test]
fn a_size_that_comes_twice_says_nothing() {
    // The same sizes in the same order, and yet in another one.
    let old = [mail(1, 10), mail(2, 20), mail(3, 20), mail(4, 40)];
    let new = [mail(1, 10), mail(3, 20), mail(2, 20), mail(4, 40)];
    assert_eq!(
        pairs(&matched(&old, &new)),
        [
            (0, 0, By::Size),
            (1, 2, By::Header),
            (2, 1, By::Header),
            (3, 3, By::Size)
        ]
    );
    // Nor where the other one stands far from it.
    let old = [mail(1, 10), mail(2, 20), mail(4, 40), mail(3, 20)];
    let new = [mail(1, 10), mail(3, 20), mail(4, 40), mail(2, 20)];
    assert_eq!(pairs(&matched(&old, &new))[1], (1, 3, By::Header));
}

#[test]
fn one_message_in_anothers_place_makes_all_sizes_doubtful() {
    let old = [mail(1, 10), mail(2, 20), mail(3, 30)];
    for replaced in 0..3 {
        let mut new = old;
        new[replaced].header = 9;
        let matching = matched(&old, &new);
        assert_eq!(matching.pairs.len(), 2);
        assert!(matching.pairs.iter().all(|pair| pair.by == By::Header));
        assert_eq!(matching.unmatched_old, [replaced]);
        assert_eq!(matching.unmatched_new, [replaced]);
    }
}

#[test]
fn sizes_that_are_estimated_match_by_header() {
    let old = [mail(1, 10), mail(2, 20), mail(3, 30)];
    let new = [mail(1, 11), mail(2, 21), mail(3, 30)];
    assert_eq!(
        pairs(&matched(&old, &new)),
        [(0, 0, By::Header), (1, 1, By::Header), (2, 2, By::Header)]
    );
}

#[test]
fn an_empty_header_matches_nothing() {
    let old = [mail(0, 10), mail(0, 20), mail(1, 30)];
    let matching = matched(&old, &old);
    assert_eq!(pairs(&matching), [(2, 2, By::Header)]);
    assert_eq!(matching.unmatched_old, [0, 1]);
    assert_eq!(matching.unmatched_new, [0, 1]);
    // Not even a single one with a size of its own.
    assert_eq!(matched(&old[..1], &old[..1]).pairs, []);
}

#[test]
fn copies_go_by_size_then_in_order_and_the_surplus_is_ambiguous() {
    let old = [mail(1, 10), mail(1, 20), mail(1, 30)];
    let new = [mail(1, 30), mail(1, 11), mail(1, 20), mail(1, 12)];
    let matching = matched(&old, &new);
    assert_eq!(
        pairs(&matching),
        [(0, 1, By::Header), (1, 2, By::Header), (2, 0, By::Header)]
    );
    assert_eq!(matching.ambiguous_new, [3]);
    let matching = matched(&new, &old);
    assert_eq!(pairs(&matching).len(), 3);
    assert_eq!(matching.ambiguous_old, [3]);

    // Identical ones keep their order.
    let (old, new) = ([mail(1, 10); 3], [mail(1, 10); 2]);
    let matching = matched(&old, &new);
    assert_eq!(pairs(&matching), [(0, 0, By::Header), (1, 1, By::Header)]);
    assert_eq!(matching.ambiguous_old, [2]);
}

#[test]
fn nothing_on_one_side_needs_no_header() {
    let some = [mail(1, 10), mail(2, 10)];
    for (old, new) in [(&some[..], &[][..]), (&[], &some), (&[], &[])] {
        let doubtful = Sizes::compare(sizes(old), sizes(new)).judged(true);
        assert_eq!(doubtful.headers_needed(), (&[][..], &[][..]));
        assert_whole(&matched(old, new), old.len(), new.len());
    }
}

/// Two maildrops of the same messages, each in an order of its own, with some
/// that only one of them has. No two messages are alike; sizes often are.
fn two_maildrops() -> impl Strategy<Value = (Vec<Mail>, Vec<Mail>)> {
    vec(1_u64..30, 0..40).prop_flat_map(|sizes| {
        let all: Vec<Mail> = (1..).zip(sizes).map(|(n, size)| mail(n, size)).collect();
        let side = || subsequence(all.clone(), 0..=all.len());
        let order = (side(), any::<bool>()).prop_flat_map(|(side, shuffled)| {
            let as_it_is = Just(side.clone()).boxed();
            if shuffled {
                Just(side).prop_shuffle().boxed()
            } else {
                as_it_is
            }
        });
        (side(), order)
    })
}

/// Maildrops with several copies of a message.
fn copies() -> impl Strategy<Value = (Vec<Mail>, Vec<Mail>)> {
    let side = || vec((0_u32..6, 1_u64..4), 0..30);
    let mails = |all: Vec<(u32, u64)>| all.into_iter().map(|(h, s)| mail(h, s)).collect();
    (side().prop_map(mails), side().prop_map(mails))
}

proptest! {
    #[test]
    fn headers_never_match_two_different_messages((old, new) in two_maildrops()) {
        let matching = matched_by_header(&old, &new);
        assert_whole(&matching, old.len(), new.len());
        for pair in &matching.pairs {
            prop_assert_eq!(old[pair.old], new[pair.new]);
        }
        // And miss none that both have.
        let (in_old, in_new): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
        prop_assert_eq!(matching.pairs.len(), in_old.intersection(&in_new).count());
    }

    #[test]
    fn messages_that_differ_in_size_are_never_matched_wrongly((old, new) in two_maildrops()) {
        // Each message has a size that no other one has.
        let own_size = |mails: Vec<Mail>| -> Vec<Mail> {
            let own = |m: Mail| mail(m.header, 100 + u64::from(m.header));
            mails.into_iter().map(own).collect()
        };
        let (old, new) = (own_size(old), own_size(new));
        let matching = matched(&old, &new);
        assert_whole(&matching, old.len(), new.len());
        for pair in &matching.pairs {
            prop_assert_eq!(old[pair.old], new[pair.new]);
        }
        let (in_old, in_new): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
        prop_assert_eq!(matching.pairs.len(), in_old.intersection(&in_new).count());
    }

    #[test]
    fn the_same_messages_in_any_order_are_all_matched_rightly(
        sizes in vec(1_u64..30, 0..40),
        seed in any::<proptest::sample::Index>(),
    ) {
        let old: Vec<Mail> = (1..).zip(sizes).map(|(n, size)| mail(n, size)).collect();
        // Swapping two of one size leaves the sizes in order.
        let mut new = old.clone();
        if !new.is_empty() {
            let one = seed.index(new.len());
            if let Some(other) = (0..new.len()).rev().find(|at| new[*at].size == new[one].size) {
                new.swap(one, other);
            }
        }
        let matching = matched(&old, &new);
        prop_assert_eq!(matching.pairs.len(), old.len());
        for pair in &matching.pairs {
            prop_assert_eq!(old[pair.old], new[pair.new]);
        }
    }

    #[test]
    fn what_size_alone_matches_is_of_one_size_and_at_one_place((old, new) in two_maildrops()) {
        let matching = matched(&old, &new);
        assert_whole(&matching, old.len(), new.len());
        let samples = Sizes::compare(sizes(&old), sizes(&new)).samples();
        for pair in &matching.pairs {
            if pair.by == By::Size {
                prop_assert_eq!(pair.old, pair.new);
                prop_assert_eq!(old[pair.old].size, new[pair.new].size);
            }
            if pair.by == By::Header || samples.contains(&pair.old) {
                prop_assert_eq!(old[pair.old], new[pair.new]);
            }
        }
    }

    #[test]
    fn copies_never_share_a_message((old, new) in copies()) {
        let matching = matched_by_header(&old, &new);
        assert_whole(&matching, old.len(), new.len());
        for pair in &matching.pairs {
            prop_assert_eq!(old[pair.old].header, new[pair.new].header);
            prop_assert!(old[pair.old].header != 0);
        }
        // As many as both sides have of each header, and of each size of it.
        let count = |mails: &[Mail], of: &dyn Fn(&Mail) -> bool| mails.iter().filter(|m| of(m)).count();
        for header in 1..6 {
            let same = |mail: &Mail| mail.header == header;
            let paired = matching.pairs.iter().filter(|pair| same(&old[pair.old]));
            prop_assert_eq!(paired.count(), count(&old, &same).min(count(&new, &same)));
            for size in 1..4 {
                let same = |m: &Mail| *m == mail(header, size);
                let paired = matching.pairs.iter().filter(|pair| {
                    same(&old[pair.old]) && same(&new[pair.new])
                });
                prop_assert_eq!(paired.count(), count(&old, &same).min(count(&new, &same)));
            }
        }
    }
}
