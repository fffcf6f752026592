//! What a server says may quote what it was sent: a secret, or a part of it.

/// Whether `text` holds `secret`, or eight octets in a row of a longer one.
pub fn reveals(text: &str, secret: &[u8]) -> bool {
    const TELLING: usize = 8;
    let part = secret.len().min(TELLING);
    part > 0
        && secret
            .windows(part)
            .any(|part| memchr::memmem::find(text.as_bytes(), part).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_quotes_a_secret_or_a_part_of_it_reveals_it() {
        assert!(reveals("BAD unknown command: LOGIN a hunter2", b"hunter2"));
        assert!(reveals(
            "BAD AUTHENTICATE PLAIN AGFsaWNl...",
            b"AGFsaWNlAHB3LWFsaWNl"
        ));
        assert!(!reveals("Authentication failed.", b"hunter2"));
        assert!(!reveals("Authentication failed.", b""));
        assert!(!reveals("", b"hunter2"));
    }
}
