//! Where a key stands in the file, and which one a misspelt key may be meant to be.

use toml::de::{DeTable, DeValue};

use super::KEYS;

/// A key that was written, with the tables around it.
pub(super) struct Place {
    path: Vec<String>,
    is_table: bool,
}

impl Place {
    /// The key that was written at `offset`, or whose value was; the innermost.
    pub fn at(table: &DeTable<'_>, offset: usize) -> Option<Self> {
        let mut found = None;
        for (key, value) in table.iter() {
            let inner = match value.get_ref() {
                DeValue::Table(table) => Self::at(table, offset),
                _ => None,
            };
            let name = key.get_ref().to_string();
            if let Some(mut inner) = inner {
                inner.path.insert(0, name);
                return Some(inner);
            }
            if key.span().contains(&offset) || value.span().contains(&offset) {
                found = Some(Self {
                    path: vec![name],
                    is_table: matches!(value.get_ref(), DeValue::Table(_)),
                });
            }
        }
        found
    }

    /// The table itself, where there is none of its name.
    pub fn first_unknown(mut self) -> Self {
        let first = |known: &&str| known.split('.').next() == self.path.first().map(String::as_str);
        if !KEYS.iter().any(first) && self.path.len() > 1 {
            self.path.truncate(1);
            self.is_table = true;
        }
        self
    }

    fn names(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// As it is written in one line.
    pub fn key(&self) -> String {
        let names: Vec<String> = self.path.iter().map(|name| quoted(name)).collect();
        names.join(".")
    }
}

/// A key, in quotes where it needs them.
pub(in crate::config) fn quoted(key: &str) -> String {
    let bare = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// What is wrong with a key that there is not, and which one may be meant.
pub(super) fn unknown(place: &Place) -> String {
    if let [kind @ ("domain" | "account" | "provider"), _, _] = place.names()[..]
        && place.is_table
    {
        return format!("unknown key; a name with dots needs quotes: [{kind}.\"example.com\"]");
    }
    let key = place.key();
    let own = place.path.last().map_or("", String::as_str);
    let last = |known: &'static str| known.rsplit('.').next().unwrap_or_default();
    let tables = KEYS
        .iter()
        .filter_map(|key| key.split_once('.'))
        .map(|(table, _)| table);
    // A table is no misspelt key.
    let keys = if place.is_table { &[] } else { KEYS };
    let nearest = keys
        .iter()
        .copied()
        .chain(tables)
        .map(|known| (distance(&key, known).min(distance(own, last(known))), known))
        // Of equals, the one that is written so above all tables, or in the same one.
        .min_by_key(|(edits, known)| (*edits, *known != own, distance(&key, known)));
    match nearest {
        Some((edits, known)) if edits <= 1 + own.chars().count() / 4 => {
            let place = if place.path.len() > 1 && !known.contains('.') {
                " (it belongs above the first [table])"
            } else {
                ""
            };
            format!("unknown key; did you mean {known}{place}?")
        }
        _ => "unknown key; deploy/popgate.toml lists all keys".to_owned(),
    }
}

/// Edits that make one word of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A longer word is no misspelling of a key.
    for (line, c) in from.chars().take(64).enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("upsteam", "upstream"), 1);
    }
}
