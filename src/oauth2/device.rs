//! How often to ask whether somebody has signed in elsewhere (RFC 8628 §3.5).

use std::time::Duration;

use serde_json::Value;

use super::TokenError;
use super::answer::{Problem, lifetime};

/// Unless the server says so.
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// What `slow_down` adds.
const SLOWER: Duration = Duration::from_secs(5);
/// Nobody waits for longer, whatever the server says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// Asks again and again.
#[derive(Debug)]
pub(super) struct Polling {
    interval: Duration,
    /// Beside it, once: a server that fails wants less to do.
    extra: Duration,
    failures: u32,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Again,
    End(TokenError),
}

impl Polling {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            extra: Duration::ZERO,
            failures: 0,
        }
    }

    /// How long a code is good, as the server says.
    pub fn lifetime(expires_in: Option<&Value>) -> Duration {
        let seconds = u64::try_from(lifetime(expires_in)).unwrap_or(0);
        Duration::from_secs(seconds).min(LONGEST_LIFETIME)
    }

    /// How long to wait between questions, as the server says.
    pub fn interval(interval: Option<&Value>) -> Duration {
        match interval.and_then(Value::as_u64) {
            Some(seconds @ 1..) => Duration::from_secs(seconds).min(LONGEST_INTERVAL),
            _ => USUAL_INTERVAL,
        }
    }

    /// How long to wait now.
    pub fn wait(&self) -> Duration {
        self.interval + self.extra
    }

    /// The server did not give tokens.
    pub fn after(&mut self, problem: Problem) -> Step {
        self.extra = Duration::ZERO;
        match problem.code.as_str() {
            "authorization_pending" => {
                self.failures = 0;
                return Step::Again;
            }
            "slow_down" => {
                self.interval = (self.interval + SLOWER).min(LONGEST_INTERVAL);
                return Step::Again;
            }
            // The second is Microsoft's.
            "access_denied" | "authorization_declined" => {
                let reason = "the person refused";
                return Step::End(TokenError::NotSignedIn(reason.to_owned()));
            }
            "expired_token" | "invalid_grant" | "bad_verification_code" => {
                return Step::End(Self::run_out());
            }
            _ => {}
        }
        match problem.meaning {
            // An outage, while somebody types a code, is no reason to give up.
            TokenError::Temporary { retry_after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let backoff = self.interval * 2_u32.saturating_pow(self.failures.min(6));
                let backoff = backoff.min(LONGEST_INTERVAL);
                self.extra = retry_after.unwrap_or(backoff.saturating_sub(self.interval));
                Step::Again
            }
            error => Step::End(error),
        }
    }

    /// It may be sooner than the server said: Microsoft's codes are said to live
    /// for 900 s and have died after 300 s.
    pub fn run_out() -> TokenError {
        TokenError::NotSignedIn("the code has run out: begin again".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(code: &str) -> Problem {
        Problem {
            code: code.to_owned(),
            ..Problem::from(TokenError::Misconfigured(code.to_owned()))
        }
    }

    fn fails(retry_after: Option<u64>) -> Problem {
        Problem::from(TokenError::Temporary {
            reason: "down".into(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    fn seconds(polling: &Polling) -> u64 {
        polling.wait().as_secs()
    }

    #[test]
    fn slower_and_slower() {
        let mut polling = Polling::new(Duration::from_secs(5));
        assert_eq!(polling.after(says("authorization_pending")), Step::Again);
        assert_eq!(seconds(&polling), 5);
        assert_eq!(polling.after(says("slow_down")), Step::Again);
        assert_eq!(seconds(&polling), 10);
        assert_eq!(polling.after(says("authorization_pending")), Step::Again);
        assert_eq!(seconds(&polling), 10, "for good");
        for _ in 0..100 {
            assert_eq!(polling.after(says("slow_down")), Step::Again);
        }
        assert_eq!(seconds(&polling), 60);
    }

    #[test]
    fn outages_are_waited_for() {
        let mut polling = Polling::new(Duration::from_secs(5));
        for wait in [10, 20, 40, 60, 60, 60, 60, 60] {
            assert_eq!(polling.after(fails(None)), Step::Again);
            assert_eq!(seconds(&polling), wait);
        }
        assert_eq!(polling.after(fails(Some(90))), Step::Again);
        assert_eq!(seconds(&polling), 95);
        assert_eq!(polling.after(says("authorization_pending")), Step::Again);
        assert_eq!(seconds(&polling), 5);
    }

    #[test]
    fn what_ends_it() {
        let end = |code| Polling::new(Duration::from_secs(5)).after(says(code));
        for code in ["expired_token", "invalid_grant", "bad_verification_code"] {
            assert_eq!(end(code), Step::End(Polling::run_out()), "{code}");
        }
        for code in ["access_denied", "authorization_declined"] {
            let refused = TokenError::NotSignedIn("the person refused".into());
            assert_eq!(end(code), Step::End(refused), "{code}");
        }
        let misconfigured = TokenError::Misconfigured("invalid_client".into());
        assert_eq!(end("invalid_client"), Step::End(misconfigured));
    }

    #[test]
    fn what_the_server_says_is_bounded() {
        let of = |given: Value| Polling::interval(Some(&given)).as_secs();
        assert_eq!(of(json!(7)), 7);
        assert_eq!(of(json!(99_999)), 60);
        for nonsense in [json!(0), json!(-1), json!("7"), json!(null)] {
            assert_eq!(of(nonsense.clone()), 5, "{nonsense}");
        }
        assert_eq!(Polling::interval(None), USUAL_INTERVAL);
        assert_eq!(Polling::lifetime(Some(&json!(300))).as_secs(), 300);
        assert_eq!(Polling::lifetime(Some(&json!(1e18))), LONGEST_LIFETIME);
    }
}
