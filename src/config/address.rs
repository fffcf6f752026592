//! Addresses to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address to listen on: `192.0.2.1:995`, `[2001:db8::1]:995`,
/// `localhost:1110` (127.0.0.1), or only a port, `995` or `:995`, for which
/// `everywhere` is filled in.
///
/// Other names are refused: which interface popgate listens on should not
/// hang on a resolver, and a name may have several addresses.
pub(super) fn parse(text: &str, everywhere: IpAddr) -> Result<SocketAddr, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty: expected an address and a port like 127.0.0.1:110".to_owned());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
        return Ok(SocketAddr::new(everywhere, port));
    }
    let shown: String = text.chars().take(80).collect();
    if let Ok(ip) = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        let example = SocketAddr::new(ip, 995);
        return Err(format!(
            "{shown:?} has no port: write for example {example}"
        ));
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if host.eq_ignore_ascii_case("localhost") => match port(digits) {
            Some(port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            None => Err(format!("{shown:?} has no port from 0 to 65535")),
        },
        Some((host, _)) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) => {
            Err(format!("{shown:?} has no port from 0 to 65535"))
        }
        Some((host, digits)) if host.parse::<Ipv6Addr>().is_ok() && port(digits).is_some() => Err(
            format!("{shown:?}: an IPv6 address is written in brackets: [{host}]:{digits}"),
        ),
        _ => Err(format!(
            "{shown:?} is not an address to listen on: expected the IP address of an interface and a port, like 127.0.0.1:110 or [::]:995, or only a port for all interfaces"
        )),
    }
}

/// A port in digits alone: `parse` would take a sign.
fn port(digits: &str) -> Option<u16> {
    digits
        .bytes()
        .all(|octet| octet.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(text: &str) -> String {
        match parse(text, Ipv6Addr::UNSPECIFIED.into()) {
            Ok(address) => address.to_string(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn what_an_address_may_be() {
        assert_eq!(parsed("127.0.0.1:110"), "127.0.0.1:110");
        assert_eq!(parsed("[::1]:0"), "[::1]:0");
        assert_eq!(parsed("995"), "[::]:995");
        assert_eq!(parsed(":995"), "[::]:995");
        assert_eq!(parsed("localhost:1110"), "127.0.0.1:1110");
        assert_eq!(parsed(" 127.0.0.1:110 "), "127.0.0.1:110");
    }

    #[test]
    fn what_it_may_not_be() {
        for (text, says) in [
            ("", "is empty"),
            ("127.0.0.1", "has no port: write for example 127.0.0.1:995"),
            ("::1", "has no port: write for example [::1]:995"),
            ("[::1]", "has no port: write for example [::1]:995"),
            ("127.0.0.1:", "has no port from 0 to 65535"),
            ("127.0.0.1:65536", "has no port from 0 to 65535"),
            ("127.0.0.1:+5", "has no port from 0 to 65535"),
            ("localhost:pop3", "has no port from 0 to 65535"),
            ("mail.example.com:995", "is not an address to listen on"),
            ("65536", "is not an address to listen on"),
            ("+5", "is not an address to listen on"),
            ("-", "is not an address to listen on"),
        ] {
            assert!(parsed(text).contains(says), "{text}: {}", parsed(text));
        }
        // 995 could be a group of the address, too: it is not guessed.
        assert!(parsed("2001:db8::1:995").contains("has no port"));
    }
}
