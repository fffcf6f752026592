//! Sets of UIDs as commands carry them (RFC 3501 §9, sequence-set).

use std::fmt;

/// A non-empty set of UIDs, ascending, in ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UidSet(Vec<(u32, u32)>);

/// Octets of a set in one command line: 8,000 for the line, less the rest of
/// the command.
const LONGEST: usize = 7_000;
/// The longest range: two numbers of ten digits, a colon and a comma.
const LONGEST_RANGE: usize = 22;

impl UidSet {
    /// The set of one UID.
    pub fn one(uid: u32) -> Self {
        Self(vec![(uid, uid)])
    }

    /// Cuts ascending UIDs into sets that fit into a command line each, and of
    /// no more than `most` messages where the server has such a limit.
    pub fn cut(uids: &[u32], most: Option<u32>) -> Vec<Self> {
        let most = most.unwrap_or(u32::MAX).max(1);
        let mut sets = Vec::new();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut count = 0;
        for &uid in uids {
            if count == most {
                sets.push(Self(std::mem::take(&mut ranges)));
                count = 0;
            }
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
                _ => {
                    if ranges.len() >= LONGEST / LONGEST_RANGE {
                        sets.push(Self(std::mem::take(&mut ranges)));
                        count = 0;
                    }
                    ranges.push((uid, uid));
                }
            }
            count += 1;
        }
        if !ranges.is_empty() {
            sets.push(Self(ranges));
        }
        sets
    }

    /// Whether `uid` is in the set.
    pub fn contains(&self, uid: u32) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= uid);
        behind > 0 && self.0.get(behind - 1).is_some_and(|(_, last)| uid <= *last)
    }
}

impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}:{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_ranges() {
        let sets = UidSet::cut(&[1, 2, 3, 5, 7, 8, u32::MAX], None);
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].to_string(), "1:3,5,7:8,4294967295");
        for uid in [1, 2, 3, 5, 7, 8, u32::MAX] {
            assert!(sets[0].contains(uid));
        }
        for uid in [0, 4, 6, 9, u32::MAX - 1] {
            assert!(!sets[0].contains(uid));
        }
    }

    #[test]
    fn long_sets_are_cut_to_fit_a_line() {
        let uids: Vec<u32> = (0..50_000).map(|n| 4_000_000_000 + 2 * n).collect();
        let sets = UidSet::cut(&uids, None);
        assert!(sets.iter().all(|set| set.to_string().len() <= LONGEST));
        let held = |uid: &u32| sets.iter().filter(|set| set.contains(*uid)).count() == 1;
        assert!(uids.iter().all(held));
    }

    #[test]
    fn sets_hold_no_more_than_the_server_allows() {
        let sets = UidSet::cut(&[1, 2, 3, 4, 5, 9, 10], Some(2));
        let texts: Vec<String> = sets.iter().map(UidSet::to_string).collect();
        assert_eq!(texts, ["1:2", "3:4", "5,9", "10"]);
    }

    #[test]
    fn nothing_makes_no_set() {
        assert!(UidSet::cut(&[], None).is_empty());
    }
}
