//! How single values are written: counts, octets, durations, lists.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

/// A whole number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub u64);

/// A number of octets: 1048576, "64 KiB", "150 MiB", "4 GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Octets(pub u64);

/// A duration: "30s", "10m", "1h30m", "2d".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub Duration);

/// How long messages are kept in view: "12h", "90d", "6w", "10y".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age(pub Duration);

/// One string, or a list of strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneOrMore(pub Vec<(String, Option<Range<usize>>)>);

/// Longer deadlines are typing errors, and may overflow clocks.
const LONGEST: Duration = Duration::from_secs(7 * DAY);
/// No mail is older.
const OLDEST: Duration = Duration::from_secs(100 * YEAR);
const DAY: u64 = 24 * 60 * 60;
const YEAR: u64 = 365 * DAY;

impl Octets {
    const EXPECTED: &'static str = "a number of octets like 65536, \"64 KiB\" or \"150 MiB\"";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let unit = match text[digits..].trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit).map(Self)
    }
}

impl Period {
    const EXPECTED: &'static str = "a duration like \"30s\", \"10m\" or \"1h30m\"";

    fn parse(text: &str) -> Option<Self> {
        let mut total: u64 = 0;
        let mut rest = text;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().ok()?;
            let unit = match rest.as_bytes().get(digits)? {
                b's' => 1,
                b'm' => 60,
                b'h' => 60 * 60,
                b'd' => DAY,
                b'w' => 7 * DAY,
                b'y' => YEAR,
                _ => return None,
            };
            total = total.checked_add(number.checked_mul(unit)?)?;
            rest = &rest[digits + 1..];
        }
        Some(Self(Duration::from_secs(total)))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
                let refused = |_| E::invalid_value(Unexpected::Signed(number), &self);
                u64::try_from(number).map(Count).map_err(refused)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
                Ok(Count(number))
            }
        }
        deserializer.deserialize_u64(Whole)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Octets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Octets::EXPECTED)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Octets, E> {
                let refused = |_| E::invalid_value(Unexpected::Signed(number), &self);
                u64::try_from(number).map(Octets).map_err(refused)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Octets, E> {
                Ok(Octets(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Octets, E> {
                let refused = || E::invalid_value(Unexpected::Str(text), &self);
                Octets::parse(text).ok_or_else(refused)
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Period::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
                let refused = || E::invalid_value(Unexpected::Str(text), &self);
                let period = Period::parse(text).ok_or_else(refused)?;
                if period.0 > LONGEST {
                    return Err(E::custom(format!("{text} is too long: at most 7d")));
                }
                Ok(period)
            }
        }
        deserializer.deserialize_any(Time)
    }
}

impl Age {
    const EXPECTED: &'static str = "a time like \"90d\", \"6w\" or \"10y\"";
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = Age;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Age::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Age, E> {
                let refused = || E::invalid_value(Unexpected::Str(text), &self);
                let Period(age) = Period::parse(text).ok_or_else(refused)?;
                if age > OLDEST {
                    return Err(E::custom(format!("{text} is too long: at most 100y")));
                }
                Ok(Age(age))
            }
        }
        deserializer.deserialize_any(Time)
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![(text.to_owned(), None)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut strings = Vec::new();
                while let Some(element) = list.next_element::<Spanned<String>>()? {
                    let span = element.span();
                    strings.push((element.into_inner(), Some(span)));
                }
                Ok(OneOrMore(strings))
            }
        }
        deserializer.deserialize_any(Strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text: &str| Period::parse(text).map(|period| period.0.as_secs());
        assert_eq!(seconds("30s"), Some(30));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("2d"), Some(172_800));
        assert_eq!(seconds("2w"), seconds("14d"));
        assert_eq!(seconds("1y"), seconds("365d"));
        for wrong in [
            "",
            "30",
            "s",
            "10 m",
            "-1s",
            "1.5h",
            "10min",
            "99999999999999999999s",
            "5ä",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(seconds("18446744073709551615d"), None);
    }

    #[test]
    fn amounts_of_octets() {
        let octets = |text: &str| Octets::parse(text).map(|octets| octets.0);
        assert_eq!(octets("512"), Some(512));
        assert_eq!(octets("64 KiB"), Some(65536));
        assert_eq!(octets("150MiB"), Some(157_286_400));
        for wrong in [
            "",
            "KiB",
            "1 KB",
            "1.5 MiB",
            "-1",
            "64 kib",
            "18446744073709551615 GiB",
            "5ä",
        ] {
            assert_eq!(octets(wrong), None, "{wrong}");
        }
    }
}
