//! Times as upstreams write them and policies count them: in seconds since 1970,
//! without leap seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, in_seconds)
}

/// When what is `age` old at the time `now` came into being.
pub(super) fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(in_seconds(age))
}

fn in_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time in UTC, in the Gregorian calendar, which counts for the years before it
/// was made as well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// From 1.
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    /// 60 is a leap second (RFC 3339 §5.6), and counts as the second after it.
    pub second: i64,
}

impl Time {
    /// `None` where there is no such time.
    pub fn since_1970(self) -> Option<i64> {
        let exists = (1..=12).contains(&self.month)
            && (1..=days_in(self.year, self.month)).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second);
        let seconds = || {
            let months: i64 = (1..self.month).map(|it| days_in(self.year, it)).sum();
            let days = days_before(self.year) - days_before(1970) + months + self.day - 1;
            ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second
        };
        exists.then(seconds)
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days in all years before this one, from the year 1 on.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_time_itself() {
        assert_eq!(before(100, Duration::from_secs(30)), 70);
        assert_eq!(before(1, Duration::MAX), 1 - i64::MAX);
        assert_eq!(before(i64::MIN, Duration::MAX), i64::MIN);
    }
}
