//! What the token endpoint says (RFC 6749 §5), read as if nobody could be trusted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::http::{Answer, temporary};
use super::{TokenError, Tokens};
use crate::secret::Secret;

/// For answers that do not say how long the token is good, or say nonsense.
const USUAL_LIFETIME: i64 = 3600;
/// Nothing is believed to be good for longer.
const LONGEST_LIFETIME: i64 = 366 * 86_400;
/// Octets of the longest token that is taken: more than any server's limit on a
/// line or a header.
const LONGEST_TOKEN: usize = 16 * 1024;

/// A successful answer.
pub(super) struct Granted {
    pub access: Secret,
    /// In seconds of Unix time.
    pub expires_at: i64,
    pub refresh: Option<Secret>,
    /// OpenID Connect Core §3.1.3.3.
    pub id_token: Option<Secret>,
}

impl Granted {
    pub fn into_tokens(self, identity: Option<String>) -> Tokens {
        Tokens {
            access: self.access,
            expires_at: self.expires_at,
            refresh: self.refresh,
            identity,
        }
    }
}

/// An error as the server names it, and whom that concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// As in RFC 6749 §5.2, RFC 8628 §3.5, or of the provider's own; empty: it says
    /// none.
    pub code: String,
    pub meaning: TokenError,
    /// A refresh token that is good, beside what is not: the one before it may be no
    /// longer.
    pub refresh: Option<Secret>,
}

impl Problem {
    /// Microsoft's AADSTS700025: the client is public here, and must not prove itself.
    pub fn wants_no_proof(&self) -> bool {
        let is_it = |reason: &str| reason.contains("AADSTS700025");
        self.code == "invalid_client"
            && matches!(&self.meaning, TokenError::Misconfigured(reason) if is_it(reason))
    }
}

/// Without a code.
impl From<TokenError> for Problem {
    fn from(meaning: TokenError) -> Self {
        Self {
            code: String::new(),
            meaning,
            refresh: None,
        }
    }
}

#[derive(Deserialize)]
struct Success {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_token: Option<String>,
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    error_description: Option<String>,
    /// Fastmail: what it answers now may be another one later.
    temporary: Option<Value>,
}

/// Reads an answer. What was `shown` never comes back in an error's text.
pub(super) fn read(answer: &Answer, shown: &[&Secret]) -> Result<Granted, Problem> {
    let failure = serde_json::from_slice::<Failure>(&answer.body).ok();
    if !answer.status.is_success() || failure.is_some() {
        return Err(problem(answer, failure, shown));
    }
    granted(answer, now()).map_err(|meaning| Problem {
        refresh: refresh_alone(&answer.body),
        ..Problem::from(meaning)
    })
}

fn granted(answer: &Answer, now: i64) -> Result<Granted, TokenError> {
    let unreadable = || temporary("the answer holds no token");
    let success: Success = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    let kind = success.token_type.as_deref().unwrap_or("Bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        let reason = format!("the provider gives tokens of the kind {}", plain(kind, &[]));
        return Err(TokenError::Misconfigured(reason));
    }
    let access = Secret::new(success.access_token);
    let refresh = success.refresh_token.map(Secret::new);
    let refresh = refresh.filter(|token| !token.reveal().is_empty());
    if !is_access_token(&access) || !refresh.as_ref().is_none_or(is_refresh_token) {
        return Err(temporary("the answer holds a token that is none"));
    }
    Ok(Granted {
        access,
        expires_at: now.saturating_add(lifetime(success.expires_in.as_ref())),
        refresh,
        id_token: success.id_token.map(Secret::new),
    })
}

/// The refresh token of an answer that is of no use otherwise.
fn refresh_alone(body: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Alone {
        refresh_token: String,
    }
    let alone: Alone = serde_json::from_slice(body).ok()?;
    Some(Secret::new(alone.refresh_token)).filter(is_refresh_token)
}

/// RFC 6750 §2.1, RFC 6749 appendix A.12: else it could become part of a command or
/// a header.
fn is_access_token(token: &Secret) -> bool {
    is_token(token, |octet| octet.is_ascii_graphic())
}

/// RFC 6749 appendix A.17.
fn is_refresh_token(token: &Secret) -> bool {
    is_token(token, |octet| matches!(octet, b' '..=b'~'))
}

fn is_token(token: &Secret, octet: fn(&u8) -> bool) -> bool {
    let octets = token.reveal().as_bytes();
    !octets.is_empty() && octets.len() <= LONGEST_TOKEN && octets.iter().all(octet)
}

/// Seconds: a number, or one in a string, as some servers write it.
pub(super) fn lifetime(expires_in: Option<&Value>) -> i64 {
    let said = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    match said {
        // The conversion saturates, and there is no NaN here.
        Some(seconds) if seconds >= 1.0 => (seconds as i64).min(LONGEST_LIFETIME),
        _ => USUAL_LIFETIME,
    }
}

fn problem(answer: &Answer, failure: Option<Failure>, shown: &[&Secret]) -> Problem {
    let status = answer.status;
    let later = |reason: String| TokenError::Temporary {
        reason,
        retry_after: answer.retry_after,
    };
    let Some(failure) = failure else {
        let reason = format!("HTTP status {}", status.as_u16());
        let meaning = match status {
            StatusCode::UNAUTHORIZED
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE => TokenError::Misconfigured(reason),
            // Not a word of OAuth: something stands in between.
            _ => later(reason),
        };
        return Problem::from(meaning);
    };
    let code = failure.error;
    let mut reason = plain(&code, shown);
    if let Some(description) = failure.error_description.filter(|it| !it.is_empty()) {
        reason = format!("{reason} ({})", plain(&description, shown));
    }
    let is_temporary = matches!(failure.temporary, Some(Value::Bool(true)));
    let meaning = if is_temporary || is_passing(status) {
        later(reason)
    } else {
        match code.as_str() {
            // The last four are Microsoft's and OpenID Connect's: the provider wants to
            // see the person (Core §3.1.2.6).
            "invalid_grant"
            | "access_denied"
            | "interaction_required"
            | "login_required"
            | "consent_required"
            | "account_selection_required" => TokenError::Refused(reason),
            "temporarily_unavailable"
            | "server_error"
            | "slow_down"
            | "internal_failure"
            | "rate_limit_exceeded" => later(reason),
            // `invalid_client`, `unauthorized_client`, `invalid_scope` and whatever else
            // says that the request is wrong: it would be wrong the next time.
            _ => TokenError::Misconfigured(reason),
        }
    };
    Problem {
        code,
        meaning,
        refresh: None,
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

/// A server's words for a log line: short, printable, and without what could be a
/// secret.
pub(super) fn plain(text: &str, shown: &[&Secret]) -> String {
    const LONGEST: usize = 160;
    const LONGEST_WORD: usize = 40;
    let repeats = shown
        .iter()
        .map(|secret| secret.reveal())
        .any(|secret| secret.len() >= 4 && text.contains(secret));
    if repeats {
        return "…".to_owned();
    }
    let is_long = |word: &str| word.chars().count() > LONGEST_WORD;
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .map(|word| if is_long(word) { "…" } else { word })
        .filter(|word| !word.is_empty());
    let mut plain = String::new();
    for word in words {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.extend(word.chars().map(|c| match c {
            ' '..='~' | '…' => c,
            _ => '?',
        }));
        if plain.chars().count() > LONGEST {
            plain = plain.chars().take(LONGEST).chain(['…']).collect();
            break;
        }
    }
    plain
}

/// In seconds of Unix time.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;

    fn said(status: u16, body: impl Into<Vec<u8>>) -> Result<Granted, Problem> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: Some(Duration::from_secs(7)),
            body: Zeroizing::new(body.into()),
        };
        read(&answer, &[&Secret::from("what-was-shown")])
    }

    fn meaning(status: u16, body: &str) -> TokenError {
        match said(status, body) {
            Ok(_) => panic!("{body} is taken for tokens"),
            Err(problem) => problem.meaning,
        }
    }

    fn is_temporary(error: &TokenError) -> bool {
        matches!(
            error,
            TokenError::Temporary { retry_after: Some(wait), .. } if wait.as_secs() == 7
        )
    }

    #[test]
    fn how_long_tokens_are_good() {
        for (given, seconds) in [
            (json!(3599), 3599),
            (json!("3599"), 3599),
            (json!(3599.9), 3599),
            (json!(null), USUAL_LIFETIME),
            (json!(0), USUAL_LIFETIME),
            (json!(-5), USUAL_LIFETIME),
            (json!("soon"), USUAL_LIFETIME),
            (json!("NaN"), USUAL_LIFETIME),
            (json!([1]), USUAL_LIFETIME),
            (json!(1e300), LONGEST_LIFETIME),
            (json!(u64::MAX), LONGEST_LIFETIME),
            (json!("inf"), LONGEST_LIFETIME),
        ] {
            assert_eq!(lifetime(Some(&given)), seconds, "{given}");
        }
        assert_eq!(lifetime(None), USUAL_LIFETIME);
    }

    #[test]
    fn who_is_to_blame() {
        let refused = |body| matches!(meaning(400, body), TokenError::Refused(_));
        assert!(refused(r#"{"error":"invalid_grant"}"#));
        assert!(refused(r#"{"error":"invalid_grant","temporary":false}"#));
        assert!(refused(r#"{"error":"interaction_required"}"#));
        for error in [
            "invalid_client",
            "unauthorized_client",
            "invalid_scope",
            "invalid_request",
            "unsupported_grant_type",
            "org_internal",
            "something_new",
        ] {
            let body = json!({"error": error, "error_description": "Mend it."});
            let expected = TokenError::Misconfigured(format!("{error} (Mend it.)"));
            assert_eq!(meaning(400, &body.to_string()), expected);
            assert_eq!(meaning(401, &body.to_string()), expected);
        }
        for (status, body) in [
            (400, r#"{"error":"invalid_grant","temporary":true}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, "<html>"),
            (403, "blocked"),
            (429, r#"{"error":"invalid_grant"}"#),
            (500, r#"{"error":"invalid_client"}"#),
            (503, ""),
        ] {
            assert!(is_temporary(&meaning(status, body)), "{status} {body}");
        }
        for status in [401, 404, 405, 410] {
            let meaning = meaning(status, "nothing here");
            assert!(matches!(meaning, TokenError::Misconfigured(_)), "{status}");
        }
        // Some answer so, with a status that says all is well.
        let meaning = meaning(200, r#"{"error":"invalid_grant"}"#);
        assert!(matches!(meaning, TokenError::Refused(_)));
    }

    #[test]
    fn what_is_no_token() {
        let good =
            json!({"access_token": "a.b-c~d+/=", "token_type": "bearer", "refresh_token": "r r"});
        let granted = said(200, good.to_string()).unwrap_or_else(|it| panic!("{it:?}"));
        assert_eq!(granted.refresh, Some("r r".into()));
        let none = json!({"access_token": "a", "refresh_token": "", "unknown": {}});
        let granted = said(200, none.to_string()).unwrap_or_else(|it| panic!("{it:?}"));
        assert_eq!(granted.refresh, None);

        let long = "a".repeat(LONGEST_TOKEN + 1);
        for access in ["", "a b", "a\r\nb", "a\u{1}", "ä", "a\0", &long] {
            let body = json!({"access_token": access}).to_string();
            assert!(matches!(meaning(200, &body), TokenError::Temporary { .. }));
        }
        for refresh in ["a\nb", "\u{7f}", "ä", &long] {
            let body = json!({"access_token": "a", "refresh_token": refresh}).to_string();
            assert!(matches!(meaning(200, &body), TokenError::Temporary { .. }));
        }
        for body in ["", "[]", "null", "{}", r#"{"access_token":7}"#, "\u{0}"] {
            assert!(matches!(meaning(200, body), TokenError::Temporary { .. }));
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(meaning(200, &deep), TokenError::Temporary { .. }));
        let mac = r#"{"access_token":"a","token_type":"mac"}"#;
        assert!(matches!(meaning(200, mac), TokenError::Misconfigured(_)));
    }

    #[test]
    fn a_refresh_token_is_good_whatever_is_beside_it() {
        let answered = |status, body: Value| match said(status, body.to_string()) {
            Ok(_) => panic!("taken for tokens"),
            Err(problem) => problem.refresh,
        };
        let beside = |body| answered(200, body);
        for body in [
            json!({"refresh_token": "r"}),
            json!({"refresh_token": "r", "access_token": 7}),
            json!({"refresh_token": "r", "access_token": "a b"}),
            json!({"refresh_token": "r", "access_token": "a", "token_type": "mac"}),
            json!({"refresh_token": "r", "access_token": "a", "id_token": []}),
        ] {
            assert_eq!(beside(body), Some("r".into()));
        }
        for refresh in [json!(""), json!("a\nb"), json!(7)] {
            assert_eq!(beside(json!({"refresh_token": refresh})), None);
        }
        // An error is one.
        let error = json!({"error": "invalid_grant", "refresh_token": "r"});
        assert_eq!(beside(error), None);
        assert_eq!(answered(500, json!({"refresh_token": "r"})), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_it_says_is_answered(
            status in 100_u16..600,
            error in proptest::option::of(".{0,20}|invalid_grant"),
            description in ".{0,300}",
            access in proptest::option::of(".{0,40}"),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..50),
        ) {
            let description = format!("{description} what-was-shown {description}");
            let body = json!({
                "error": error, "error_description": description, "access_token": access,
            });
            for body in [body.to_string().into_bytes(), rest] {
                match said(status, body) {
                    Ok(granted) => assert!(granted.access.reveal().bytes().all(|it| it.is_ascii_graphic())),
                    Err(problem) => {
                        let text = problem.meaning.to_string();
                        assert!(!text.contains("what-was-shown"), "{text}");
                        assert!(text.chars().count() < 400, "{text}");
                        assert!(!text.chars().any(char::is_control), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_server_s_words_hold_no_secret() {
        let shown = Secret::from("what-was-shown");
        let plain = |text: &str| super::plain(text, &[&shown]);
        assert_eq!(
            plain("AADSTS700082: The refresh token has expired."),
            "AADSTS700082: The refresh token has expired."
        );
        assert_eq!(plain("no what-was-shown here"), "…");
        assert_eq!(plain(&format!("no {} here", "x".repeat(41))), "no … here");
        assert_eq!(plain("a\r\nb\u{1b}[31mc\u{202e}d"), "a b [31mc?d");
        let long = plain(&"word ".repeat(1000));
        assert_eq!(long.chars().count(), 161);
        assert!(long.ends_with('…'));
    }
}
