//! When things of accounts were last used: gathered in memory, and written to the
//! cache now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::part::Result;

/// Account and what of it, to seconds of Unix time. A cache that an earlier popgate
/// made has no such table until something was used.
const USES: TableDefinition<(&str, &str), i64> = TableDefinition::new("uses");

/// How long uses wait for others, to be written together.
pub(super) const GATHERED: Duration = Duration::from_secs(5);

/// Uses that wait to be written. What comes beyond is lost.
const MOST_WAITING: usize = 100_000;

/// Account, and what of it.
type Key = (String, String);

/// What is not written yet.
#[derive(Default)]
pub(super) struct Uses(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    times: HashMap<Key, i64>,
    /// Somebody is about to write them.
    is_expected: bool,
}

impl Uses {
    /// Notes a use. Returns whether somebody must be sent to write it.
    pub fn note(&self, account: &str, what: &str, time: i64) -> bool {
        let mut waiting = self.lock();
        let key = (account.to_owned(), what.to_owned());
        if waiting.times.len() >= MOST_WAITING && !waiting.times.contains_key(&key) {
            return false;
        }
        let latest = waiting.times.entry(key).or_insert(time);
        *latest = time.max(*latest);
        !std::mem::replace(&mut waiting.is_expected, true)
    }

    /// What waits, for whoever writes it.
    pub fn take(&self) -> HashMap<Key, i64> {
        let mut waiting = self.lock();
        waiting.is_expected = false;
        std::mem::take(&mut waiting.times)
    }

    /// Adds what is not written yet to what is.
    pub fn add_to(&self, account: &str, uses: &mut HashMap<String, i64>) {
        for ((of, what), time) in &self.lock().times {
            if of == account {
                let latest = uses.entry(what.clone()).or_insert(*time);
                *latest = (*time).max(*latest);
            }
        }
    }

    /// The account is gone.
    pub fn forget(&self, account: &str) {
        self.lock().times.retain(|(of, _), _| of != account);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was written of an account.
pub(super) fn of(transaction: &ReadTransaction, account: &str) -> Result<HashMap<String, i64>> {
    let table = match transaction.open_table(USES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(HashMap::new()),
        table => table?,
    };
    let mut uses = HashMap::new();
    for row in table.range((account, "")..)? {
        let (key, time) = row?;
        let (of, what) = key.value();
        if of != account {
            break;
        }
        uses.insert(what.to_owned(), time.value());
    }
    Ok(uses)
}

/// Writes uses; the latest of each stays.
pub(super) fn write(transaction: &WriteTransaction, times: &HashMap<Key, i64>) -> Result<()> {
    let mut table = transaction.open_table(USES)?;
    for ((account, what), time) in times {
        let key = (account.as_str(), what.as_str());
        let before = table.get(key)?.map(|it| it.value());
        if before.is_none_or(|before| before < *time) {
            table.insert(key, time)?;
        }
    }
    Ok(())
}

/// Forgets an account.
pub(super) fn forget(transaction: &WriteTransaction, account: &str) -> Result<()> {
    let mut table = transaction.open_table(USES)?;
    let mut whats = Vec::new();
    for row in table.range((account, "")..)? {
        let (key, _) = row?;
        let (of, what) = key.value();
        if of != account {
            break;
        }
        whats.push(what.to_owned());
    }
    for what in whats {
        table.remove((account, what.as_str()))?;
    }
    Ok(())
}
