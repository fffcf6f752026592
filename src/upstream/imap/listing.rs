//! The listing of a mailbox, held to EXISTS: it is whole, or it is an error.
//! Pure.

use super::fetch::Row;

/// Rows of `FETCH 1:* (UID RFC822.SIZE)` as they arrive, while the mailbox may
/// grow and shrink (RFC 3501 §7.3.1, §7.4.1).
#[derive(Debug)]
pub(super) struct Listing {
    /// Messages in the mailbox now.
    exists: u32,
    /// Of these, how many were there when the listing was asked for. New ones
    /// come behind them and may be missing from the answer.
    due: u32,
    rows: Vec<Listed>,
    expunged: u32,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    seq: u32,
    uid: Option<u32>,
    octets: Option<u64>,
}

/// A listed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub uid: u32,
    /// RFC822.SIZE, in octets.
    pub octets: u64,
}

/// What a listing got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListingError {
    #[error("the listing names a message that does not exist")]
    NoSuchMessage,
    #[error("the listing is not whole")]
    Incomplete,
    #[error("the listing contradicts itself")]
    Contradiction,
    #[error("too much changed while the mailbox was listed")]
    Restless,
}

/// Each EXPUNGE renumbers all rows; nobody expunges so many by accident.
const MOST_EXPUNGED: u32 = 20_000;

impl Listing {
    /// A listing of a mailbox that holds `exists` messages.
    pub fn new(exists: u32) -> Self {
        Self {
            exists,
            due: exists,
            rows: Vec::new(),
            expunged: 0,
        }
    }

    /// A row of the listing, or news of a message's flags.
    pub fn row(&mut self, row: Row) -> Result<(), ListingError> {
        if row.uid.is_none() && row.octets.is_none() {
            return Ok(());
        }
        if row.seq == 0 || row.seq > self.exists {
            return Err(ListingError::NoSuchMessage);
        }
        if self.rows.len() as u64 > 2 * u64::from(self.exists) + 1000 {
            return Err(ListingError::Restless);
        }
        self.rows.push(Listed {
            seq: row.seq,
            uid: row.uid,
            octets: row.octets,
        });
        Ok(())
    }

    /// EXISTS: there are `exists` messages now. Fewer come about by EXPUNGE only.
    pub fn exists(&mut self, exists: u32) -> Result<(), ListingError> {
        if exists < self.exists {
            return Err(ListingError::Contradiction);
        }
        self.exists = exists;
        Ok(())
    }

    /// EXPUNGE: message `seq` is gone, those behind it move up.
    pub fn expunge(&mut self, seq: u32) -> Result<(), ListingError> {
        if seq == 0 || seq > self.exists {
            return Err(ListingError::NoSuchMessage);
        }
        self.expunged += 1;
        if self.expunged > MOST_EXPUNGED {
            return Err(ListingError::Restless);
        }
        self.exists -= 1;
        if seq <= self.due {
            self.due -= 1;
        }
        self.rows.retain_mut(|row| {
            if row.seq > seq {
                row.seq -= 1;
                return true;
            }
            row.seq != seq
        });
        Ok(())
    }

    /// The messages by ascending UID, if all that are due were named.
    pub fn finish(mut self) -> Result<Vec<Entry>, ListingError> {
        self.rows.sort_by_key(|row| row.seq);
        let mut entries: Vec<Entry> = Vec::with_capacity(self.rows.len());
        let mut due = 1..=self.due;
        for rows in self.rows.chunk_by(|one, other| one.seq == other.seq) {
            let Some(seq) = due.next() else { break };
            if rows.first().map(|row| row.seq) != Some(seq) {
                return Err(ListingError::Incomplete);
            }
            entries.push(merge(rows)?);
        }
        if due.next().is_some() {
            return Err(ListingError::Incomplete);
        }
        entries.sort_unstable_by_key(|entry| entry.uid);
        if entries.windows(2).any(|pair| pair[0].uid == pair[1].uid) {
            return Err(ListingError::Contradiction);
        }
        Ok(entries)
    }
}

/// What several rows say of one message.
fn merge(rows: &[Listed]) -> Result<Entry, ListingError> {
    let mut uid = None;
    let mut octets = None;
    for row in rows {
        if let (Some(known), Some(other)) = (uid, row.uid)
            && known != other
        {
            return Err(ListingError::Contradiction);
        }
        uid = uid.or(row.uid);
        octets = octets.or(row.octets);
    }
    match (uid, octets) {
        (Some(uid), Some(octets)) => Ok(Entry { uid, octets }),
        _ => Err(ListingError::Incomplete),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u32, uid: u32) -> Row {
        Row {
            seq,
            uid: Some(uid),
            octets: Some(100 + u64::from(uid)),
            ..Row::default()
        }
    }

    fn uids(listing: Listing) -> Result<Vec<u32>, ListingError> {
        Ok(listing.finish()?.iter().map(|entry| entry.uid).collect())
    }

    #[test]
    fn rows_in_any_order_give_the_mailbox_by_uid() {
        let mut listing = Listing::new(3);
        for it in [row(3, 9), row(1, 4), row(2, 7)] {
            listing.row(it).unwrap();
        }
        assert_eq!(uids(listing), Ok(vec![4, 7, 9]));
    }

    #[test]
    fn a_missing_row_is_an_error() {
        for missing in 1..=3 {
            let mut listing = Listing::new(3);
            for seq in (1..=3).filter(|seq| *seq != missing) {
                listing.row(row(seq, seq)).unwrap();
            }
            assert_eq!(uids(listing), Err(ListingError::Incomplete));
        }
    }

    #[test]
    fn an_expunge_meanwhile_moves_the_rows() {
        let mut listing = Listing::new(3);
        listing.row(row(1, 4)).unwrap();
        listing.expunge(1).unwrap();
        listing.row(row(1, 7)).unwrap();
        listing.row(row(2, 9)).unwrap();
        assert_eq!(uids(listing), Ok(vec![7, 9]));
    }

    #[test]
    fn mail_that_arrives_meanwhile_may_be_missing() {
        let mut listing = Listing::new(1);
        listing.row(row(1, 4)).unwrap();
        listing.exists(3).unwrap();
        listing.row(row(3, 9)).unwrap();
        assert_eq!(uids(listing), Ok(vec![4]));
    }

    #[test]
    fn contradictions_are_errors() {
        let mut twice = Listing::new(2);
        twice.row(row(1, 4)).unwrap();
        twice.row(row(2, 4)).unwrap();
        assert_eq!(uids(twice), Err(ListingError::Contradiction));
        let mut changed = Listing::new(1);
        changed.row(row(1, 4)).unwrap();
        changed.row(row(1, 5)).unwrap();
        assert_eq!(uids(changed), Err(ListingError::Contradiction));
        assert_eq!(
            Listing::new(1).row(row(2, 4)),
            Err(ListingError::NoSuchMessage)
        );
        assert_eq!(
            Listing::new(1).row(row(0, 4)),
            Err(ListingError::NoSuchMessage)
        );
        assert_eq!(Listing::new(2).exists(1), Err(ListingError::Contradiction));
        assert_eq!(Listing::new(2).expunge(3), Err(ListingError::NoSuchMessage));
    }

    #[test]
    fn news_of_flags_neither_helps_nor_hurts() {
        let mut listing = Listing::new(1);
        listing
            .row(Row {
                seq: 1,
                deleted: Some(false),
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
}
