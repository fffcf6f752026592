//! What searches find.

use std::ops::RangeInclusive;

use crate::upstream::UpstreamError;

/// UIDs that a search has found.
#[derive(Clone, Debug)]
pub(super) struct FoundUids {
    /// In the order of their starts once they are complete.
    ranges: Vec<RangeInclusive<u32>>,
    /// No mailbox needs more ranges than it has messages.
    most: usize,
}

impl FoundUids {
    pub fn new(exists: u32) -> Self {
        Self {
            ranges: Vec::new(),
            most: (exists as usize).saturating_mul(2).saturating_add(1000),
        }
    }

    pub fn add(
        &mut self,
        found: impl IntoIterator<Item = RangeInclusive<u32>>,
    ) -> Result<(), Endless> {
        self.ranges.extend(found);
        if self.ranges.len() > self.most {
            return Err(Endless);
        }
        Ok(())
    }

    /// Sorts the ranges, and joins those that overlap.
    pub fn complete(mut self) -> Self {
        self.ranges.sort_unstable_by_key(|range| *range.start());
        self.ranges.dedup_by(|next, kept| {
            let overlap = next.start() <= kept.end();
            if overlap && next.end() > kept.end() {
                *kept = *kept.start()..=*next.end();
            }
            overlap
        });
        self
    }

    /// How many ranges of UIDs there are.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// How many UIDs there are up to `last`, once they are complete.
    pub fn count_up_to(&self, last: u32) -> u64 {
        let ranges = self.ranges.iter().filter(|range| *range.start() <= last);
        ranges
            .map(|range| u64::from(last.min(*range.end()) - range.start()) + 1)
            .sum()
    }

    pub fn contains(&self, uid: u32) -> bool {
        let behind = self.ranges.partition_point(|range| *range.start() <= uid);
        behind > 0
            && self
                .ranges
                .get(behind - 1)
                .is_some_and(|range| range.contains(&uid))
    }
}

/// More was found than can be there.
#[derive(Debug)]
pub(super) struct Endless;

impl From<Endless> for UpstreamError {
    fn from(_: Endless) -> Self {
        Self::protocol("a search that finds more than there is")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_hide_all_that_they_hold() {
        let mut deleted = FoundUids::new(10);
        assert!(deleted.add([9..=9, 1..=100, 5..=6, 100..=120]).is_ok());
        let deleted = deleted.complete();
        assert!(
            [1, 7, 50, 101, 120]
                .iter()
                .all(|uid| deleted.contains(*uid))
        );
        assert!([0, 121].iter().all(|uid| !deleted.contains(*uid)));
        assert_eq!(deleted.count_up_to(0), 0);
        assert_eq!(deleted.count_up_to(5), 5);
        assert_eq!(deleted.count_up_to(u32::MAX), 120);
    }

    #[test]
    fn a_search_finds_no_more_than_there_is() {
        let mut deleted = FoundUids::new(10);
        assert!(deleted.add((1..=1020).map(|uid| uid..=uid)).is_ok());
        assert!(deleted.add([1..=1]).is_err());
    }
}
