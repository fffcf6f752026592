//! A browser without a screen: it keeps cookies, fills in forms, and can be told
//! to send what no browser would.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use url::{Url, form_urlencoded};

use crate::site::Site;
use crate::support::PATIENCE;

/// Somebody's browser.
pub struct Visitor<'a> {
    pub site: &'a Site,
    pub cookies: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no answer: {text:?}")),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Every header of this name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_default()
    }

    /// What the page says, without its markup.
    pub fn says(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for part in self.body.split('<') {
            text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
        }
        text.replace("&#38;", "&").replace("&#39;", "'")
    }

    /// The value of the hidden field.
    pub fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .body
            .split_once(&start)
            .unwrap_or_else(|| panic!("no {name} in {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }

    /// Where a page leads by itself.
    pub fn leads_to(&self) -> Url {
        let (_, rest) = self
            .body
            .split_once("content=\"0; url=")
            .unwrap_or_else(|| panic!("leads nowhere: {}", self.body));
        let url = rest.split('"').next().unwrap();
        url.replace("&#38;", "&").parse().unwrap()
    }

    /// The value on the page of a new password.
    pub fn setting(&self, id: &str) -> String {
        let start = format!("id=\"{id}\"");
        let (_, rest) = self
            .body
            .split_once(&start)
            .unwrap_or_else(|| panic!("no {id} in {}", self.body));
        let (_, rest) = rest.split_once('>').unwrap();
        rest.split('<').next().unwrap().to_owned()
    }
}

impl<'a> Visitor<'a> {
    pub fn new(site: &'a Site) -> Self {
        Self {
            site,
            cookies: BTreeMap::new(),
        }
    }

    /// The origin that a browser would name.
    pub fn origin(&self) -> String {
        self.site.url.clone()
    }

    fn host(&self) -> String {
        let (_, host) = self.site.url.split_once("://").unwrap();
        host.to_owned()
    }

    /// Sends a request as it is, and reads all of the answer.
    pub fn raw(&mut self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.site.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Whoever refuses may close early.
        let _ = stream.write_all(request.as_bytes());
        let mut octets = Vec::new();
        let _ = stream.read_to_end(&mut octets);
        let answer = Answer::parse(&String::from_utf8_lossy(&octets));
        for cookie in answer.headers("set-cookie") {
            let (pair, _) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// A request with more header lines, each ending in CRLF.
    pub fn request(&mut self, line: &str, more: &str, body: &str) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = match cookies.as_slice() {
            [] => String::new(),
            some => format!("Cookie: {}\r\n", some.join("; ")),
        };
        let host = match more.starts_with("Host:") {
            true => String::new(),
            false => format!("Host: {}\r\n", self.host()),
        };
        let request =
            format!("{line} HTTP/1.1\r\n{host}{cookies}{more}Connection: close\r\n\r\n{body}");
        self.raw(&request)
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), "", "")
    }

    /// Sends a form as a browser does.
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let origin = self.origin();
        let more = format!("Origin: {origin}\r\nSec-Fetch-Site: same-origin\r\n");
        self.post_with(path, &more, fields)
    }

    /// Sends a form with these header lines.
    pub fn post_with(&mut self, path: &str, more: &str, fields: &[(&str, &str)]) -> Answer {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        let body = body.finish();
        let more = format!(
            "{more}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
            body.len()
        );
        self.request(&format!("POST {path}"), &more, &body)
    }

    /// Follows a redirect within the site.
    pub fn follow(&mut self, answer: &Answer) -> Answer {
        let location = answer.header("location").to_owned();
        assert!(location.starts_with('/'), "{answer:?}");
        self.get(&location)
    }

    /// Goes to the provider; the URL there.
    pub fn leave(&mut self, provider: &str, address: &str) -> Url {
        let csrf = self.get("/enrol").field("csrf");
        let mut fields = vec![("csrf", csrf.as_str()), ("provider", provider)];
        if !address.is_empty() {
            fields.push(("address", address));
        }
        let answer = self.post("/enrol/start", &fields);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.leads_to()
    }

    /// Comes back from a provider that said this.
    pub fn come_back(&mut self, url: &Url) -> Answer {
        let query = url.query().unwrap_or_default();
        let path = format!("{}?{query}", url.path());
        self.request(&format!("GET {path}"), "Sec-Fetch-Site: cross-site\r\n", "")
    }

    /// Signs in; the first page behind it.
    pub fn sign_in(&mut self, user: &str) -> Answer {
        let url = self.leave("mail", "");
        let back = self.site.provider.sign_in(&url, user);
        let answer = self.come_back(&back);
        assert_eq!(answer.status, 303, "{}", answer.text());
        self.follow(&answer)
    }

    /// Makes a password for a device; the page that shows it.
    pub fn add_device(&mut self, name: &str) -> Answer {
        let csrf = self.get("/enrol/devices").field("csrf");
        let answer = self.post("/enrol/devices/add", &[("csrf", &csrf), ("name", name)]);
        assert_eq!(answer.status, 303, "{}", answer.text());
        self.follow(&answer)
    }

    /// Signs in as the operator.
    pub fn operate(&mut self) -> Answer {
        let csrf = self.get("/operator").field("csrf");
        let fields = [("csrf", csrf.as_str()), ("password", crate::site::OPERATOR)];
        let answer = self.post("/operator/sign-in", &fields);
        assert_eq!(answer.status, 303, "{}", answer.text());
        self.follow(&answer)
    }
}
