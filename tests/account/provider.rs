//! A provider: an authorisation server, and a Dovecot that takes its tokens.

use super::Site;
use super::support::authorization_server::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET};
use super::support::servers::Dovecot;

pub struct Provider {
    pub server: AuthorizationServer,
    pub dovecot: Dovecot,
}

impl Provider {
    /// `None` where the test cannot be run.
    pub fn start() -> Option<Self> {
        let server = AuthorizationServer::start()?;
        let dovecot = Dovecot::with(&[
            ("OAUTH_URL", &server.issuer()),
            ("USERS", "alice@example.org:{PLAIN}pw-alice@example.org"),
        ])?;
        dovecot.append(
            "alice@example.org",
            "INBOX",
            b"Subject: for alice\r\n\r\nhello\r\n",
        );
        Some(Self { server, dovecot })
    }

    /// `[provider.test]`, at which people sign in.
    pub fn table(&self, more: &str) -> String {
        format!(
            "[provider.test]\ntitle = \"Test Mail\"\ngrant = \"user\"\nupstream = {:?}\nca_file = {:?}\n\
             issuer = {:?}\nclient_id = {CLIENT_ID:?}\nclient_secret_file = \"client.secret\"\n\
             scopes = [\"openid\", \"email\", \"offline_access\", \"mail\"]\n{more}\n",
            self.dovecot.imaps_url(),
            self.dovecot.ca_file().to_str().unwrap(),
            self.server.issuer(),
        )
    }

    /// A site with that provider and these lines.
    pub fn site(&self, lines: &str) -> Site {
        let site = Site::new(&format!("{lines}\n{}", self.table("")));
        site.write_secret("client.secret", CLIENT_SECRET);
        site
    }

    /// Enrols by a device code; the device password.
    pub fn enrol(&self, site: &Site, address: &str, more: &[&str]) -> String {
        let mut arguments = vec!["add", address];
        arguments.extend(more);
        let mut added = super::Conversation::start(site, &arguments);
        let sign_in = added.next();
        assert_eq!(sign_in["method"], "device", "{sign_in}");
        let code = sign_in["user_code"].as_str().unwrap();
        self.server
            .approve(code, sign_in["address"].as_str().unwrap());
        let enrolled = added.next();
        assert_eq!(enrolled["event"], "enrolled", "{enrolled}");
        assert_eq!(added.end().code, 0);
        enrolled["device"]["password"].as_str().unwrap().to_owned()
    }
}
