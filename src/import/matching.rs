//! Which message of a new maildrop is which of an old one. Pure: whoever uses
//! it fetches the headers that it asks for.
//!
//! Matching two messages that are not the same hides one of them from its
//! client for good, while one that is not matched is only downloaded again. So
//! whatever is in doubt is decided by the header, or not at all:
//!
//! 1. [`Sizes`]: messages at the same place with the same size, which no other
//!    message on either side has. They are believed where the headers of some of
//!    them, the first and the last among these, agree.
//! 2. [`Doubtful`]: all others by their headers, wherever they stand.

use std::collections::HashMap;

use super::HeaderHash;

/// A message's place in its maildrop, from 0.
pub type Place = usize;

/// The sizes of two maildrops, compared.
#[derive(Debug)]
pub struct Sizes {
    old: Vec<u64>,
    new: Vec<u64>,
    /// Places where both have the same message, to judge by its size; ascending.
    alike: Vec<Place>,
}

/// The messages that only their headers can match.
#[derive(Debug)]
pub struct Doubtful {
    sizes: Sizes,
    old: Vec<Place>,
    new: Vec<Place>,
}

/// How a message was matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By place and size.
    Size,
    /// By the hash of its header.
    Header,
}

/// A message of the old maildrop and the same one in the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its place in the old maildrop.
    pub old: Place,
    /// Its place in the new maildrop.
    pub new: Place,
    /// How that was found.
    pub by: By,
}

/// What became of every message; each place stands in one of the lists of its
/// side, once. All are in ascending order, pairs by their old place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// The same message on both sides.
    pub pairs: Vec<Pair>,
    /// Old messages that the new maildrop does not have.
    pub unmatched_old: Vec<Place>,
    /// New messages that the old maildrop did not have.
    pub unmatched_new: Vec<Place>,
    /// Old messages of which the new maildrop has fewer copies.
    pub ambiguous_old: Vec<Place>,
    /// New messages of which the old maildrop had fewer copies.
    pub ambiguous_new: Vec<Place>,
}

impl Sizes {
    /// Compares the sizes, in octets, of two maildrops in their order.
    pub fn compare(old: Vec<u64>, new: Vec<u64>) -> Self {
        let (in_old, in_new) = (occurrences(&old), occurrences(&new));
        let once = |size: &u64| in_old.get(size) == Some(&1) && in_new.get(size) == Some(&1);
        let alike = old
            .iter()
            .zip(&new)
            .take_while(|(old, new)| old == new)
            .enumerate()
            .filter(|(_, (size, _))| once(size))
            .map(|(place, _)| place)
            .collect();
        Self { old, new, alike }
    }

    /// The places, the same on both sides, whose headers must agree before
    /// sizes are believed: the first, the last, and some between, about the
    /// square root of their number. Empty where sizes say nothing.
    pub fn samples(&self) -> Vec<Place> {
        let last = self.alike.len().saturating_sub(1);
        let parts = self.alike.len().isqrt() + 1;
        let mut samples: Vec<Place> = (0..=parts)
            .filter_map(|part| self.alike.get(last * part / parts).copied())
            .collect();
        samples.dedup();
        samples
    }

    /// Believes the sizes where `agree`: all samples have the same header on
    /// both sides. Otherwise every message is doubtful.
    pub fn judged(mut self, agree: bool) -> Doubtful {
        if !agree {
            self.alike.clear();
        }
        let doubtful = |count: usize| {
            let mut alike = self.alike.iter().copied().peekable();
            (0..count)
                .filter(|place| alike.next_if_eq(place).is_none())
                .collect()
        };
        Doubtful {
            old: doubtful(self.old.len()),
            new: doubtful(self.new.len()),
            sizes: self,
        }
    }
}

fn occurrences(sizes: &[u64]) -> HashMap<u64, usize> {
    let mut occurrences = HashMap::with_capacity(sizes.len());
    for size in sizes {
        *occurrences.entry(*size).or_insert(0) += 1;
    }
    occurrences
}

impl Doubtful {
    /// The places in the old and in the new maildrop whose headers are needed;
    /// none where one side has nothing left to match.
    pub fn headers_needed(&self) -> (&[Place], &[Place]) {
        if self.old.is_empty() || self.new.is_empty() {
            (&[], &[])
        } else {
            (&self.old, &self.new)
        }
    }

    /// Matches by the headers of the places that were needed. A message whose
    /// header is not known, or has nothing that tells it from others, matches
    /// none.
    ///
    /// Messages with the same header are taken for copies of one: those of the
    /// same size are matched first, then all in order, as far as they go.
    pub fn by_header(
        self,
        old: &HashMap<Place, HeaderHash>,
        new: &HashMap<Place, HeaderHash>,
    ) -> Matching {
        let by_size = self.sizes.alike.iter().map(|place| Pair {
            old: *place,
            new: *place,
            by: By::Size,
        });
        let mut matching = Matching {
            pairs: by_size.collect(),
            ..Matching::default()
        };
        let mut groups: HashMap<HeaderHash, Group> = HashMap::new();
        for place in &self.old {
            match old.get(place) {
                Some(hash) => groups.entry(*hash).or_default().old.push(*place),
                None => matching.unmatched_old.push(*place),
            }
        }
        for place in &self.new {
            match new.get(place) {
                Some(hash) => groups.entry(*hash).or_default().new.push(*place),
                None => matching.unmatched_new.push(*place),
            }
        }
        for group in groups.into_values() {
            group.match_into(&mut matching, &self.sizes);
        }
        matching.pairs.sort_unstable_by_key(|pair| pair.old);
        matching.unmatched_old.sort_unstable();
        matching.unmatched_new.sort_unstable();
        matching.ambiguous_old.sort_unstable();
        matching.ambiguous_new.sort_unstable();
        matching
    }
}

/// Messages with one header, in the order of each side.
#[derive(Default)]
struct Group {
    old: Vec<Place>,
    new: Vec<Place>,
}

impl Group {
    fn match_into(mut self, matching: &mut Matching, sizes: &Sizes) {
        if self.new.is_empty() {
            matching.unmatched_old.append(&mut self.old);
            return;
        }
        if self.old.is_empty() {
            matching.unmatched_new.append(&mut self.new);
            return;
        }
        let mut pair = |old, new| {
            let by = By::Header;
            matching.pairs.push(Pair { old, new, by });
        };
        // Places of one size, the first one last.
        let mut by_size: HashMap<Option<&u64>, Vec<Place>> = HashMap::new();
        for place in self.new.iter().rev() {
            let size = sizes.new.get(*place);
            by_size.entry(size).or_default().push(*place);
        }
        self.old.retain(|old| {
            let same_size = by_size.get_mut(&sizes.old.get(*old)).and_then(Vec::pop);
            if let Some(new) = same_size {
                pair(*old, new);
            }
            same_size.is_none()
        });
        let mut left: Vec<Place> = by_size.into_values().flatten().collect();
        left.sort_unstable();
        let in_order = self.old.len().min(left.len());
        for (old, new) in self.old.drain(..in_order).zip(left.drain(..in_order)) {
            pair(old, new);
        }
        matching.ambiguous_old.append(&mut self.old);
        matching.ambiguous_new.append(&mut left);
    }
}

#[cfg(test)]
mod tests;
