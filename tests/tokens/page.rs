//! From the page where people enrol to a message in a client: the program, a real
//! browser, and a mail server that asks about each token.

use std::fs;
use std::net::TcpListener;

use popgate::secret::Secret;

use crate::ALICE;
use crate::death::fetchmail;
use crate::site::{Site, dovecot};
use crate::support::AuthorizationServer;
use crate::support::browser::{Browser, Look};

#[test]
fn from_the_page_to_a_message_read_by_fetchmail() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let Some(browser) = Browser::start(Look::DESK) else {
        return;
    };
    let dovecot = dovecot(&server);
    // Free a moment ago: the page's own address must be known before it is served.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut site = Site::new(server, &dovecot.plain_url(), 3600, "");
    assert!(site.wait(site.accounts().remove(ALICE)).unwrap());
    let config = site.path("popgate.toml");
    let written = fs::read_to_string(&config).unwrap();
    let written = written.replace("http = \"127.0.0.1:0\"", &format!("http = \"{address}\""));
    let page = format!(
        "[enrolment]\npublic_url = \"http://{address}\"\ndomains = [\"example.org\"]\nhost = \"localhost\"\n"
    );
    fs::write(&config, written + &page).unwrap();
    let gateway = site.start();

    browser.open(&format!("http://{address}/enrol"));
    browser.wait_for("Read your mail in the program you already use");
    browser.click("form .offer");
    let issuer = site.server.issuer();
    browser.wait("the provider's page", |it| it.url().starts_with(&issuer));
    browser.open(&format!("{}&login_as={ALICE}", browser.url()));
    browser.wait_for("Your mailbox is connected");
    browser.type_into("#name", "fetchmail");
    browser.click("main button");
    browser.wait_for("Set up fetchmail");
    site.password = Secret::new(browser.text_of("#password"));

    assert_eq!(site.read(&gateway), 2);
    fetchmail(&site, &gateway);
    // What people enrol with is nowhere in what the program says.
    let secret = site.password.reveal();
    assert!(!gateway.logs().contains(secret), "{}", gateway.logs());
}
