//! Ids (RFC 8620 §1.2), many of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The longest id, in octets.
pub(super) const LONGEST: usize = 255;

/// Ids end to end in one string: however short they are, they take hardly more
/// memory than the JSON that they were read from.
#[derive(Debug, Default)]
pub(super) struct Ids {
    text: String,
    ends: Vec<u32>,
}

impl Ids {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(self.ends.iter().copied())
            .filter_map(|(start, end)| self.text.get(start as usize..end as usize))
    }

    /// Appends others. False where they are too many.
    #[must_use]
    pub fn extend(&mut self, others: &Self) -> bool {
        others.iter().all(|id| self.push(id))
    }

    fn push(&mut self, id: &str) -> bool {
        let Ok(end) = u32::try_from(self.text.len() + id.len()) else {
            return false;
        };
        self.text.push_str(id);
        self.ends.push(end);
        true
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ids")
            }

            fn visit_unit<E: Error>(self) -> Result<Ids, E> {
                Ok(Ids::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ids, A::Error> {
                let mut ids = Ids::default();
                while let Some(id) = list.next_element::<std::borrow::Cow<'_, str>>()? {
                    if !(1..=LONGEST).contains(&id.len()) || !ids.push(&id) {
                        return Err(A::Error::custom("no id"));
                    }
                }
                Ok(ids)
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// The ids of a set, written as an object of those that are in it (RFC 8621
/// §4.1.1, `mailboxIds`).
pub(super) fn set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ids, D::Error> {
    struct Set;
    impl<'de> Visitor<'de> for Set {
        type Value = Ids;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a set of ids")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ids, A::Error> {
            let mut ids = Ids::default();
            while let Some((id, is_in)) = map.next_entry::<std::borrow::Cow<'_, str>, bool>()? {
                if is_in && !ids.push(&id) {
                    return Err(A::Error::custom("ids without end"));
                }
            }
            Ok(ids)
        }
    }
    deserializer.deserialize_map(Set)
}

/// Cuts ids into batches of at most `most` ids, whose JSON stays below `octets`
/// where `overhead` octets are added for each id; an id that is longer goes
/// alone.
pub(super) fn batches<'a>(
    ids: &[&'a str],
    most: usize,
    octets: usize,
    overhead: usize,
) -> Vec<Vec<&'a str>> {
    let mut batches: Vec<Vec<&str>> = Vec::new();
    let mut taken = 0;
    for id in ids {
        let cost = id.len() + overhead;
        match batches.last_mut() {
            Some(batch) if batch.len() < most && taken + cost <= octets => {
                taken += cost;
                batch.push(id);
            }
            _ => {
                taken = cost;
                batches.push(vec![id]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_added_to() {
        let mut ids: Ids = serde_json::from_str(r#"["a","b\u0063","d"]"#).unwrap();
        let more: Ids = serde_json::from_str(r#"["e"]"#).unwrap();
        assert!(ids.extend(&more));
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["a", "bc", "d", "e"]);
        assert_eq!(ids.len(), 4);
        assert!(serde_json::from_str::<Ids>("null").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_of_ids() {
        let long = format!("[\"{}\"]", "x".repeat(256));
        for bad in ["[1]", "[[]]", "{}", "\"a\"", "[null]", "[\"\"]", &long] {
            assert!(serde_json::from_str::<Ids>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_set_holds_what_is_in_it() {
        #[derive(serde::Deserialize)]
        struct Placed(#[serde(deserialize_with = "set")] Ids);
        let read = |json: &str| serde_json::from_str::<Placed>(json);
        let Placed(ids) = read(r#"{"a":true,"b":false,"\u0063":true}"#).unwrap();
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["a", "c"]);
        for bad in ["null", "[]", r#"{"a":1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn batches_are_bounded_by_number_and_by_octets() {
        let ids = ["aa", "bb", "cc", "dd"];
        assert_eq!(batches(&ids, 3, 100, 1), [&ids[..3], &ids[3..]]);
        assert_eq!(batches(&ids, 3, 6, 1), [&ids[..2], &ids[2..]]);
        assert_eq!(batches(&ids, 3, 1, 1).len(), 4);
        assert!(batches(&[], 3, 6, 1).is_empty());
    }
}
