//! What CAPA announces (RFC 2449 §5, §6): what is listed works, what does not
//! apply is not listed.

use super::session::{Front, Terms};

/// The states in which CAPA can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Authorization,
    /// What the login may do is known.
    Transaction(Terms),
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
    let delay = login_delay(front, state);
    lines.extend(delay.as_deref());
    let retention = expire(front, state);
    lines.extend(retention.as_deref());
    // RFC 6856 §2.2: USER says that user names and passwords may be UTF-8.
    lines.push(if front.password_login() {
        "UTF8 USER"
    } else {
        "UTF8"
    });
    lines.extend(["LANG", "IMPLEMENTATION popgate", ""]);
    lines.join("\r\n").into_bytes()
}

/// RFC 2449 §6.5: before login the largest value of any user, and `USER` where
/// a more accurate one is to be had after it. Who has none then is told so:
/// what was announced must be in both states.
fn login_delay(front: &Front, state: State) -> Option<String> {
    let announced = front.login_delay?;
    Some(match state {
        State::Authorization if announced.differs => {
            format!("LOGIN-DELAY {} USER", announced.value)
        }
        State::Authorization => format!("LOGIN-DELAY {}", announced.value),
        State::Transaction(terms) => format!("LOGIN-DELAY {}", terms.login_delay.unwrap_or(0)),
    })
}

/// RFC 2449 §6.7: the same with the smallest value. NEVER is said only where
/// others' messages expire: popgate cannot vouch for the upstream.
fn expire(front: &Front, state: State) -> Option<String> {
    let announced = front.expire?;
    Some(match state {
        State::Authorization if announced.differs => format!("EXPIRE {} USER", announced.value),
        State::Authorization => format!("EXPIRE {}", announced.value),
        State::Transaction(terms) => match terms.expire {
            Some(days) => format!("EXPIRE {days}"),
            None => "EXPIRE NEVER".to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pop3::session::Announced;
    use crate::sasl::Mechanism;

    const TRANSACTION: State = State::Transaction(Terms {
        deletion_refused: false,
        updates_always: false,
        login_delay: None,
        expire: None,
    });

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
            login_delay: None,
            expire: None,
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
        assert_eq!(listed(&front, TRANSACTION), expected);
    }

    #[test]
    fn stls_only_before_login() {
        let front = Front {
            cleartext_login: true,
            ..front()
        };
        let stls = String::from("STLS");
        assert!(listed(&front, State::Authorization).contains(&stls));
        assert!(!listed(&front, TRANSACTION).contains(&stls));
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
    fn delays_and_retention() {
        let said = |front: &Front, state| {
            let lines = listed(front, state).into_iter();
            let told = |line: &String| line.starts_with("LOGIN") || line.starts_with("EXPIRE");
            lines.filter(told).collect::<Vec<_>>().join(", ")
        };
        let own = |login_delay, expire| {
            State::Transaction(Terms {
                login_delay,
                expire,
                ..Terms::default()
            })
        };
        let announced = |value, differs| Some(Announced { value, differs });
        assert_eq!(said(&front(), State::Authorization), "");
        assert_eq!(said(&front(), TRANSACTION), "");
        let same = Front {
            login_delay: announced(300, false),
            expire: announced(30, false),
            ..front()
        };
        let both = "LOGIN-DELAY 300, EXPIRE 30";
        assert_eq!(said(&same, State::Authorization), both);
        assert_eq!(said(&same, own(Some(300), Some(30))), both);
        let differ = Front {
            login_delay: announced(300, true),
            expire: announced(0, true),
            ..front()
        };
        let both = "LOGIN-DELAY 300 USER, EXPIRE 0 USER";
        assert_eq!(said(&differ, State::Authorization), both);
        let both = "LOGIN-DELAY 60, EXPIRE 7";
        assert_eq!(said(&differ, own(Some(60), Some(7))), both);
        assert_eq!(said(&differ, TRANSACTION), "LOGIN-DELAY 0, EXPIRE NEVER");
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
