//! Whoever is to know that an account has died, or is well again: by a webhook, by
//! a command. No login waits for either.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::Url;

use super::Alarm;
use crate::oauth2::is_loopback;

/// Pauses between attempts at a webhook that does not answer.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Of popgate's environment, what a command has. Secrets may be in the rest.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// What is told, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    pub event: Event,
    /// The account.
    pub address: String,
    /// Who has to sign in, where it is not the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
    /// The provider's name in the configuration, or the URL upstream.
    pub provider: String,
    /// Since when the account was dead, in seconds of Unix time.
    pub since: i64,
    /// In words.
    pub reason: String,
    /// Where to sign in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<Url>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// Somebody has to sign in again.
    SignInNeeded,
    /// Somebody has, or it works again.
    Cured,
}

/// What became of the calls for one message: whether whoever was called knows now;
/// `None`: nobody is called that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub webhook: Option<bool>,
    pub command: Option<bool>,
}

impl Called {
    /// The outcome of each call.
    pub(super) fn each(self) -> impl Iterator<Item = bool> {
        self.webhook.into_iter().chain(self.command)
    }

    /// Whether somebody knows now.
    pub(super) fn is_known(self) -> bool {
        self.each().any(|knows| knows)
    }
}

impl Alarm {
    /// Whether anybody is told.
    pub(super) fn is_set(&self) -> bool {
        self.webhook.is_some() || self.command.is_some()
    }

    /// Tells the webhook and the command.
    pub(super) async fn tell(&self, message: &Message) -> Called {
        // A structure of texts and numbers becomes JSON.
        let Ok(json) = serde_json::to_vec(message) else {
            return Called {
                webhook: self.webhook.as_ref().map(|_| false),
                command: self.command.as_ref().map(|_| false),
            };
        };
        let account = message.address.as_str();
        let webhook = async {
            let url = self.webhook.as_ref()?;
            let told = self.post(url, &json).await;
            match &told {
                Ok(()) => info!(account, "the webhook knows"),
                Err(problem) => warn!(account, problem, "the webhook has failed"),
            }
            Some(told.is_ok())
        };
        let command = async {
            let Some([program, arguments @ ..]) = self.command.as_deref() else {
                return None;
            };
            let ended = self.execute(program, arguments, &json).await;
            match &ended {
                Ok(status) if status.success() => info!(account, program, "the command knows"),
                Ok(status) => warn!(account, program, %status, "the command has failed"),
                Err(problem) => warn!(account, program, problem, "the command has failed"),
            }
            Some(ended.is_ok_and(|status| status.success()))
        };
        let (webhook, command) = tokio::join!(webhook, command);
        Called { webhook, command }
    }

    async fn post(&self, url: &Url, json: &[u8]) -> Result<(), String> {
        if !may_be_told(url) {
            return Err("its URL is not https, nor http on loopback".to_owned());
        }
        let client = self.client()?;
        let mut pauses = PAUSES.iter();
        loop {
            let request = client
                .post(url.clone())
                .header("content-type", "application/json")
                .body(json.to_vec())
                .send();
            let problem = match request.await.map(|answer| answer.status()) {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) if status.is_server_error() || status.as_u16() == 429 => {
                    format!("it answers {status}")
                }
                Ok(status) => return Err(format!("it answers {status}")),
                // Without the URL: there may be a secret in it.
                Err(error) => cause(&error.without_url()),
            };
            match pauses.next() {
                Some(pause) => sleep(*pause).await,
                None => return Err(problem),
            }
        }
    }

    fn client(&self) -> Result<reqwest::Client, String> {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.patience)
            .timeout(self.patience)
            .user_agent("popgate");
        let mut tls = match &self.tls {
            Some(tls) => (**tls).clone(),
            None => trusting_nobody()?,
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = builder.tls_backend_preconfigured(tls);
        builder
            .build()
            .map_err(|_| "no HTTP client can be made".to_owned())
    }

    /// Runs a program in a process group of its own. What it writes is not kept.
    async fn execute(
        &self,
        program: &str,
        arguments: &[String],
        json: &[u8],
    ) -> Result<ExitStatus, String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut group = Group(command.spawn().map_err(|error| error.to_string())?);
        let child = &mut group.0;
        let stdin = child.stdin.take();
        let ended = timeout(self.patience, async {
            if let Some(mut stdin) = stdin {
                // It need not read.
                let _ = stdin.write_all(json).await;
            }
            child.wait().await
        });
        match ended.await {
            Ok(status) => status.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it did not end within {:?}", self.patience)),
        }
    }
}

/// A process group: killed as a whole, unless its leader has ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // The number is the leader's as long as it was not waited for.
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = pid.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// For webhooks on loopback, which have no certificate.
fn trusting_nobody() -> Result<rustls::ClientConfig, String> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let nobody = rustls::RootCertStore::empty();
    Ok(builder.with_root_certificates(nobody).with_no_client_auth())
}

/// Whether a URL may be sent what accounts are called: https, or http on loopback.
fn may_be_told(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// The last cause of an error: the others only say that there is one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
