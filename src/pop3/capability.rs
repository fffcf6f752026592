//! What CAPA announces (RFC 2449 §5, §6): what is listed works, what does not
//! apply is not listed.

use super::session::Front;

/// The states in which CAPA can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Authorization,
    Transaction,
}

/// The capabilities, one a line, each with CRLF.
///
/// All but STLS are listed in both states. RFC 2449 §5 wants that of whatever
/// AUTHORIZATION state announces, so that one CAPA is enough; JavaMail looks
/// for UIDL before it logs in.
pub(super) fn capabilities(front: &Front, state: State) -> Vec<u8> {
    let mut lines = vec!["TOP", "UIDL"];
    if front.password_login() {
        lines.push("USER");
    }
    lines.extend(["RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]);
    let sasl;
    if front.login_allowed() && !front.mechanisms.is_empty() {
        let names: Vec<_> = front
            .mechanisms
            .iter()
            .map(|mechanism| mechanism.name())
            .collect();
        sasl = format!("SASL {}", names.join(" "));
        lines.push(&sasl);
    }
    // RFC 2595 §8: AUTHORIZATION state only.
    if state == State::Authorization && front.stls_offered() {
        lines.push("STLS");
    }
    // RFC 6856 §2.2: USER says that user names and passwords may be UTF-8.
    lines.push(if front.password_login() {
        "UTF8 USER"
    } else {
        "UTF8"
    });
    lines.extend(["LANG", "IMPLEMENTATION popgate", ""]);
    lines.join("\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::Mechanism;

    fn listed(front: &Front, state: State) -> Vec<String> {
        let text = String::from_utf8(capabilities(front, state)).unwrap();
        assert!(text.ends_with("\r\n"));
        text.lines().map(str::to_owned).collect()
    }

    fn front() -> Front {
        Front {
            tls_active: false,
            stls_available: true,
            cleartext_login: false,
            mechanisms: Mechanism::ALL.to_vec(),
            bad_command_limit: 20,
        }
    }

    #[test]
    fn before_tls() {
        let expected = [
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "STLS",
            "UTF8",
            "LANG",
            "IMPLEMENTATION popgate",
        ];
        assert_eq!(listed(&front(), State::Authorization), expected);
    }

    #[test]
    fn under_tls() {
        let expected = [
            "TOP",
            "UIDL",
            "USER",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "SASL PLAIN LOGIN XOAUTH2 OAUTHBEARER",
            "UTF8 USER",
            "LANG",
            "IMPLEMENTATION popgate",
        ];
        let front = Front {
            tls_active: true,
            ..front()
        };
        assert_eq!(listed(&front, State::Authorization), expected);
        assert_eq!(listed(&front, State::Transaction), expected);
    }

    #[test]
    fn stls_only_before_login() {
        let front = Front {
            cleartext_login: true,
            ..front()
        };
        let stls = String::from("STLS");
        assert!(listed(&front, State::Authorization).contains(&stls));
        assert!(!listed(&front, State::Transaction).contains(&stls));
    }

    #[test]
    fn an_upstream_that_takes_only_tokens() {
        let mechanisms = vec![Mechanism::XOauth2];
        let front = Front {
            tls_active: true,
            mechanisms,
            ..front()
        };
        let lines = listed(&front, State::Authorization);
        assert!(lines.contains(&"SASL XOAUTH2".into()));
        assert!(!lines.contains(&"USER".into()));
        assert!(lines.contains(&"UTF8".into()));
    }

    #[test]
    fn no_empty_sasl_line() {
        let front = Front {
            tls_active: true,
            mechanisms: vec![],
            ..front()
        };
        assert!(
            !listed(&front, State::Authorization)
                .iter()
                .any(|line| line.starts_with("SASL"))
        );
    }
}
