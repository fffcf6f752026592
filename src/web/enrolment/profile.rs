//! What mail programs set themselves up with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_xml::escape::escape;

use super::Config;
use super::session::sha256;
use crate::secret::Secret;
use crate::web::autoconfig::{self, Submission, User};

/// A way to the maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    pub(super) implicit_tls: bool,
}

impl Config {
    /// The ways to the maildrop, the best first.
    pub(super) fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        let way = |implicit_tls| move |port| Way { port, implicit_tls };
        let implicit = self.pop3.pop3s_port.map(way(true));
        implicit
            .into_iter()
            .chain(self.pop3.pop3_port.map(way(false)))
    }
}

/// A configuration profile for Apple's mail programs, unsigned
/// (`com.apple.mail.managed`). `None`: there is no way to the maildrop.
pub(super) fn apple(
    config: &Config,
    submission: Option<&Submission>,
    address: &str,
    device: &str,
    password: &Secret,
) -> Option<Secret> {
    let way = config.ways().next()?;
    let identifier = format!("popgate.{}.{}", config.pop3.host, seed(address, device));
    let mut mail = Dictionary::new();
    mail.string("PayloadType", "com.apple.mail.managed");
    mail.integer("PayloadVersion", 1);
    mail.string("PayloadIdentifier", &format!("{identifier}.mail"));
    mail.string("PayloadUUID", &uuid(&format!("{identifier}.mail")));
    mail.string("PayloadDisplayName", &config.title);
    mail.string("EmailAccountType", "EmailTypePOP");
    mail.string("EmailAccountDescription", &config.title);
    mail.string("EmailAddress", address);
    mail.string("IncomingMailServerAuthentication", "EmailAuthPassword");
    mail.string("IncomingMailServerHostName", &config.pop3.host);
    mail.integer("IncomingMailServerPortNumber", way.port);
    // STLS where the port is not one of TLS from the first octet.
    mail.boolean("IncomingMailServerUseSSL", true);
    mail.string("IncomingMailServerUsername", address);
    mail.string("IncomingPassword", password.reveal());
    // The format has no profile without a server for outgoing mail. Its password
    // is asked for: it is another server's.
    match submission {
        Some(submission) => {
            mail.string("OutgoingMailServerAuthentication", "EmailAuthPassword");
            mail.string("OutgoingMailServerHostName", &submission.host);
            mail.integer("OutgoingMailServerPortNumber", submission.port);
            mail.boolean("OutgoingMailServerUseSSL", true);
            mail.string("OutgoingMailServerUsername", address);
            mail.boolean("OutgoingPasswordSameAsIncomingPassword", false);
        }
        None => {
            mail.string("OutgoingMailServerAuthentication", "EmailAuthNone");
            mail.string("OutgoingMailServerHostName", &config.pop3.host);
        }
    }
    let mut profile = Dictionary::new();
    profile.string("PayloadType", "Configuration");
    profile.integer("PayloadVersion", 1);
    profile.string("PayloadIdentifier", &identifier);
    profile.string("PayloadUUID", &uuid(&identifier));
    profile.string(
        "PayloadDisplayName",
        &format!("{}: {address}", config.title),
    );
    profile.string(
        "PayloadDescription",
        "Sets up an account for reading mail by POP3.",
    );
    profile.boolean("PayloadRemovalDisallowed", false);
    profile.raw(
        "PayloadContent",
        &format!("<array>\n{}</array>\n", mail.finish()),
    );
    Some(Secret::new(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n{}</plist>\n",
        profile.finish()
    )))
}

/// The same device of the same account has the same name for ever: its profile
/// takes the place of an older one.
fn seed(address: &str, device: &str) -> String {
    let digest = sha256(format!("{address}\0{device}").as_bytes());
    URL_SAFE_NO_PAD.encode(&digest[..9])
}

/// A UUID made of a name (RFC 9562 §5.8).
fn uuid(name: &str) -> String {
    let mut octets = [0; 16];
    octets.copy_from_slice(&sha256(name.as_bytes())[..16]);
    octets[6] = octets[6] & 0x0F | 0x80;
    octets[8] = octets[8] & 0x3F | 0x80;
    let hex: String = octets.iter().map(|octet| format!("{octet:02X}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Thunderbird's settings, without a password: its format has none. `None`: the
/// address has no domain that can be, or there is no way to the maildrop.
pub(super) fn thunderbird(
    config: &Config,
    submission: Option<&Submission>,
    address: &str,
) -> Option<String> {
    let domain = autoconfig::domain(address.rsplit_once('@')?.1)?;
    let autoconfig = autoconfig::Config {
        host: config.pop3.host.clone(),
        domains: [domain.clone()].into(),
        pop3s_port: config.pop3.pop3s_port,
        pop3_port: config.pop3.pop3_port,
        user: User::Address,
        display_name: config.title.clone(),
        submission: submission.cloned(),
    };
    autoconfig.mozilla(&domain)
}

/// A dictionary of a property list, as it is written.
struct Dictionary(zeroize::Zeroizing<String>);

impl Dictionary {
    fn new() -> Self {
        // Large enough that it is not moved, and a password left behind.
        let mut text = String::with_capacity(8 * 1024);
        text.push_str("<dict>\n");
        Self(zeroize::Zeroizing::new(text))
    }

    fn string(&mut self, key: &str, value: &str) {
        // XML has no other control characters.
        let value: String = value
            .chars()
            .filter(|c| !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}'))
            .collect();
        self.raw(key, &format!("<string>{}</string>\n", escape(value)));
    }

    fn integer(&mut self, key: &str, value: u16) {
        self.raw(key, &format!("<integer>{value}</integer>\n"));
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.raw(key, if value { "<true/>\n" } else { "<false/>\n" });
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.0.push_str("<key>");
        self.0.push_str(key);
        self.0.push_str("</key>\n");
        self.0.push_str(value);
    }

    fn finish(mut self) -> String {
        self.0.push_str("</dict>\n");
        std::mem::take(&mut *self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::web::enrolment::Reached;

    fn config() -> Config {
        Config {
            public_url: "https://pop.example/".parse().unwrap(),
            domains: ["example.com".to_owned()].into(),
            providers: Vec::new(),
            operator_password: None,
            pop3: Reached {
                host: "pop.example".into(),
                pop3s_port: Some(995),
                pop3_port: Some(110),
            },
            title: "Mail & more".into(),
        }
    }

    /// The text behind a key.
    fn value(profile: &str, key: &str) -> String {
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document = roxmltree::Document::parse_with_options(profile, options).unwrap();
        let key = document
            .descendants()
            .find(|node| node.has_tag_name("key") && node.text() == Some(key))
            .unwrap_or_else(|| panic!("no {key}"));
        let value = key.next_sibling_element().unwrap();
        match value.tag_name().name() {
            "string" | "integer" => value.text().unwrap_or_default().to_owned(),
            other => other.to_owned(),
        }
    }

    #[test]
    fn the_apple_profile_has_what_a_device_needs_and_everything_escaped() {
        let password = "</string><key>&\"'".into();
        let address = "o'neil&<b>@example.com";
        let profile = apple(&config(), None, address, "d1", &password).unwrap();
        let of = |key| value(profile.reveal(), key);
        assert_eq!(of("IncomingPassword"), "</string><key>&\"'");
        assert_eq!(of("IncomingMailServerUsername"), address);
        assert_eq!(of("IncomingMailServerHostName"), "pop.example");
        assert_eq!(of("IncomingMailServerPortNumber"), "995");
        assert_eq!(of("IncomingMailServerUseSSL"), "true");
        assert_eq!(of("EmailAccountType"), "EmailTypePOP");
        assert_eq!(of("EmailAccountDescription"), "Mail & more");
        let again = apple(&config(), None, address, "d1", &password).unwrap();
        assert_eq!(profile, again);
        let other = apple(&config(), None, address, "d2", &password).unwrap();
        assert_ne!(
            of("PayloadIdentifier"),
            value(other.reveal(), "PayloadIdentifier")
        );
    }

    #[test]
    fn thunderbird_is_told_the_ways_but_no_password() {
        let xml = thunderbird(&config(), None, "a@Example.COM").unwrap();
        let document = roxmltree::Document::parse(&xml).unwrap();
        let text = |name| {
            let node = document.descendants().find(|node| node.has_tag_name(name));
            node.and_then(|node| node.text()).unwrap().trim().to_owned()
        };
        assert_eq!(text("domain"), "example.com");
        assert_eq!([text("hostname"), text("port")], ["pop.example", "995"]);
        assert_eq!(thunderbird(&config(), None, "nobody"), None);
    }
}
