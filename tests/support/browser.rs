//! A real browser: Chromium, led by WebDriver (`scripts/fetch-browser`,
//! `scripts/run-browser`).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;
use super::servers::scripts;

/// The environment variable that turns a skip into a failure.
const NO_SKIP: &str = "POPGATE_TEST_NO_SKIP";

/// How WebDriver names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The key that goes to the next field, and others, as WebDriver names them.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
pub const SPACE: &str = "\u{E00D}";

/// How a browser is.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl Look {
    pub const DESK: Self = Self {
        width: 1280,
        height: 900,
        dark: false,
    };
    pub const PHONE: Self = Self {
        width: 390,
        height: 844,
        dark: false,
    };

    pub fn dark(self) -> Self {
        Self { dark: true, ..self }
    }
}

/// A browser with one window, which ends with this.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    pub downloads: PathBuf,
    _profile: TempDir,
}

/// What is on a page.
#[derive(Clone, Debug)]
pub struct Element(String);

impl Browser {
    /// `None` where the test cannot be run.
    pub fn start(look: Look) -> Option<Self> {
        if !fetched() {
            return None;
        }
        let profile = tempfile::Builder::new()
            .prefix("popgate-browser-")
            .tempdir()
            .unwrap();
        let downloads = profile.path().join("downloads");
        fs::create_dir(&downloads).unwrap();
        // Free a moment ago: somebody else may have taken it since.
        let (driver, port) = (0..5)
            .find_map(|_| run_driver(profile.path()))
            .expect("chromedriver does not start");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            downloads,
            _profile: profile,
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        let answer = browser.command(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "acceptInsecureCerts": false,
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {
                    "binary": root.join("usr/lib/chromium/chromium"),
                    "args": [
                        "--headless=new",
                        // Its sandbox needs what no container has; only our own pages are opened.
                        "--no-sandbox",
                        "--disable-gpu",
                        "--disable-dev-shm-usage",
                        "--disable-background-networking",
                        "--no-first-run",
                        "--hide-scrollbars",
                        "--force-device-scale-factor=1",
                        // Nothing leaves this host.
                        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                    ],
                    "prefs": {
                        "download.default_directory": browser.downloads,
                        "download.prompt_for_download": false,
                        "safebrowsing.enabled": false,
                    },
                },
            }}}),
        );
        browser.session = answer["sessionId"].as_str().unwrap().to_owned();
        let (width, height) = (look.width, look.height);
        browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        let scheme = if look.dark { "dark" } else { "light" };
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        Some(browser)
    }

    /// What WebDriver answers; a failure is the test's.
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.try_command(method, path, body) {
            Ok(value) => value,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    fn try_command(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        // The driver keeps the connection, whatever it is told.
        let mut answer = BufReader::new(stream);
        let (mut status, mut length) = (String::new(), 0);
        answer.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(octets) = line.strip_prefix("content-length:") {
                length = octets.trim().parse().unwrap();
            }
        }
        let mut octets = vec![0; length];
        answer.read_exact(&mut octets).unwrap();
        let json: Value = serde_json::from_slice(&octets).unwrap();
        let value = json["value"].clone();
        match status.contains(" 200 ") {
            true => Ok(value),
            false => Err(value),
        }
    }

    fn of_session(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.command(method, &path, body)
    }

    /// A command of the browser's own protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.of_session("POST", "/goog/cdp/execute", &body)
    }

    pub fn open(&self, url: &str) {
        self.of_session("POST", "/url", &json!({"url": url}));
    }

    pub fn reload(&self) {
        self.of_session("POST", "/refresh", &json!({}));
    }

    pub fn url(&self) -> String {
        let url = self.of_session("GET", "/url", &Value::Null);
        url.as_str().unwrap().to_owned()
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "waited for {what} at {}:\n{}",
                self.url(),
                self.text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a page with this heading.
    pub fn wait_for(&self, heading: &str) {
        self.wait(heading, |browser| {
            let script = "return document.readyState === 'complete' \
                && (document.querySelector('h1') || {}).textContent";
            browser.run(script).as_str() == Some(heading)
        });
    }

    /// The first element that a CSS selector finds.
    pub fn find(&self, selector: &str) -> Element {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.of_session("POST", "/element", &body);
        Element(found[ELEMENT].as_str().unwrap().to_owned())
    }

    pub fn click(&self, selector: &str) {
        let Element(id) = self.find(selector);
        self.of_session("POST", &format!("/element/{id}/click"), &json!({}));
    }

    pub fn type_into(&self, selector: &str, text: &str) {
        let Element(id) = self.find(selector);
        self.of_session(
            "POST",
            &format!("/element/{id}/value"),
            &json!({"text": text}),
        );
    }

    /// What a reader sees of the first element that a CSS selector finds; nothing where
    /// there is none, as while one page follows another.
    pub fn text_of(&self, selector: &str) -> String {
        let script = format!(
            "return (document.querySelector({}) || {{}}).innerText;",
            json!(selector)
        );
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// What a reader sees of the page.
    pub fn text(&self) -> String {
        self.text_of("body")
    }

    /// Strikes keys, wherever the focus is.
    pub fn keys(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.of_session("POST", "/actions", &actions);
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        let path = format!("/session/{}/execute/sync", self.session);
        // A page that is just being left has nothing to say.
        self.try_command("POST", &path, &body).unwrap_or_default()
    }

    /// Goes on with the tabulator until the focus is on what the selector finds, and is
    /// to be seen there.
    pub fn tab_to(&self, selector: &str) {
        for _ in 0..60 {
            self.keys(TAB);
            let script = format!(
                "const it = document.activeElement; \
                 return it.matches({}) && getComputedStyle(it).outlineStyle !== 'none';",
                json!(selector)
            );
            if self.run(&script) == json!(true) {
                return;
            }
        }
        panic!("the keyboard does not reach {selector} at {}", self.url());
    }

    /// What the console has said since it was last asked: errors, and violations of
    /// the content security policy.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.of_session("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// Keeps a picture of the whole page in `target/screenshots`.
    pub fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        fs::create_dir_all(&folder).unwrap();
        let picture = self.devtools(
            "Page.captureScreenshot",
            &json!({"format": "png", "captureBeyondViewport": true}),
        );
        let octets = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::write(folder.join(format!("{name}.png")), octets).unwrap();
    }

    /// How much wider the page is than the window, in pixels, and what sticks out.
    pub fn overflow(&self) -> Value {
        self.run(
            "const width = document.documentElement.clientWidth; \
             const out = [...document.querySelectorAll('body *')].filter(it => { \
               const box = it.getBoundingClientRect(); \
               return box.right > width + 0.5 && box.height > 1 && box.width > 1; }); \
             return [document.documentElement.scrollWidth - width, out.map(it => it.outerHTML.slice(0, 90))];",
        )
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = self.try_command("DELETE", &path, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The driver, listening; `None`: somebody else has the port.
fn run_driver(profile: &Path) -> Option<(Child, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let log = fs::File::create(profile.join("driver.log")).unwrap();
    let mut driver = Command::new(scripts().join("run-browser"))
        .arg(port.to_string())
        .arg(profile)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if driver.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some((driver, port));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = driver.kill();
    let _ = driver.wait();
    None
}

/// Whether the browser was fetched. Says so where not.
fn fetched() -> bool {
    if Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/browser/stamp")
        .exists()
    {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        std::env::var_os(NO_SKIP).is_none(),
        "{test}: the browser is not there, and {NO_SKIP} is set: run scripts/fetch-browser"
    );
    let line = format!("SKIPPED: {test}: needs a browser; run ./test, which fetches it\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}
