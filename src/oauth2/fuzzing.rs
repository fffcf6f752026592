//! What the fuzz target `token_answer` drives: what a provider says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use zeroize::Zeroizing;

use super::answer::{Granted, read};
use super::http::Answer;
use super::identity::{Claims, Expected};
use crate::secret::Secret;

const SHOWN: &str = "what-was-shown";

/// Reads `body` as the answer of a token endpoint, as the claims of an id token, and
/// as what userinfo says.
///
/// # Panics
///
/// Where a token could become part of a command or a header, or an error says what
/// nobody should read.
pub fn token_answer(status: u16, body: &[u8]) {
    let answer = Answer {
        status: StatusCode::from_u16(100 + status % 500).unwrap_or(StatusCode::OK),
        retry_after: None,
        body: Zeroizing::new(body.to_vec()),
    };
    match read(&answer, &[&Secret::from(SHOWN)]) {
        Ok(granted) => good(&granted),
        Err(problem) => {
            said(&problem.meaning.to_string());
            good_to_refresh(problem.refresh.as_ref());
        }
    }
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(body));
    let expected = Expected {
        issuer: Some("https://id.example.org"),
        client: "popgate",
        nonce: Some(&Secret::from(SHOWN)),
    };
    match Claims::of_id_token(&Secret::new(token), &expected, 1_800_000_000) {
        Ok(claims) => somebody(&claims),
        Err(error) => said(&error.to_string()),
    }
    if let Some(claims) = Claims::of_userinfo(body) {
        somebody(&claims);
    }
}

fn good(granted: &Granted) {
    let access = granted.access.reveal();
    assert!(!access.is_empty() && access.bytes().all(|it| it.is_ascii_graphic()));
    good_to_refresh(granted.refresh.as_ref());
}

fn good_to_refresh(token: Option<&Secret>) {
    if let Some(refresh) = token {
        let refresh = refresh.reveal();
        assert!(!refresh.is_empty() && !refresh.contains(char::is_control) && refresh.is_ascii());
    }
}

fn somebody(claims: &Claims) {
    if let Some(identity) = claims.identity() {
        let is_bad = |c: char| c.is_control() || c.is_whitespace();
        assert!(!identity.is_empty() && identity.len() < 1000 && !identity.contains(is_bad));
    }
}

/// What the operator reads of it.
fn said(text: &str) {
    assert!(!text.contains(SHOWN) && !text.contains(char::is_control));
    assert!(text.chars().count() < 400);
}
