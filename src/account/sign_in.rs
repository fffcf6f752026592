//! Signing in from a terminal: by a device code, or by any browser whose last
//! address is pasted.

use std::borrow::Cow;

use serde_json::json;
use url::{Url, form_urlencoded};

use super::output::{Output, shown};
use super::{AccountError, Site, qr};
use crate::accounts::{Account, Provider};
use crate::cli::{Method, read_pasted, somebody_is_there};
use crate::oauth2::{AuthorizationRequest, Client, TokenError, Tokens};
use crate::secret::Secret;

/// How often somebody may paste something else.
const TRIES: u32 = 3;

impl Site {
    /// Tokens of the person whose mailbox it is.
    pub(super) async fn sign_in(
        &self,
        client: &Client,
        provider: &Provider,
        account: &Account,
        method: Option<Method>,
        output: Output<'_>,
    ) -> Result<Tokens, AccountError> {
        let who = account.signs_in();
        let title = provider.title.as_str();
        match method {
            Some(Method::Device) => {
                let tokens = by_device(client, title, who, output).await?;
                tokens.map_err(AccountError::Enrolment)
            }
            Some(Method::Paste) => self.by_paste(client, provider, who, output).await,
            None if client.has_device_codes().await? => {
                match by_device(client, title, who, output).await? {
                    Ok(tokens) => Ok(tokens),
                    // Registered, or scoped, in a way that device codes are not for.
                    Err(reason) => {
                        output.say(format_args!(
                            "{} gives no device code: {reason}\n",
                            shown(title)
                        ));
                        self.by_paste(client, provider, who, output).await
                    }
                }
            }
            None => self.by_paste(client, provider, who, output).await,
        }
    }

    async fn by_paste(
        &self,
        client: &Client,
        provider: &Provider,
        who: &str,
        output: Output<'_>,
    ) -> Result<Tokens, AccountError> {
        let Some(redirect) = self.redirects.get(&provider.name) else {
            let problem = format!("[provider.{}] has no redirect_url", provider.name);
            return Err(AccountError::Unsuitable(problem));
        };
        let request = client.begin(redirect, Some(who)).await?;
        output.object(&json!({
            "event": "sign_in", "method": "paste", "address": who,
            "url": request.url.as_str(), "redirect_url": redirect.as_str(),
        }));
        output.say(format_args!(
            "Open this address in any browser, on any machine, and sign in to {} as {}:\n\n  {}\n",
            shown(&provider.title),
            shown(who),
            request.url
        ));
        output.say(format_args!(
            "The browser ends on an address that begins with {redirect}\nIt may say that there is nothing, or that the sign-in is not valid; that does not matter. Copy the whole address.\n"
        ));
        let mut tries = 0;
        let code = loop {
            let pasted = tokio::task::spawn_blocking(|| read_pasted("Paste it here: "));
            let pasted = pasted.await.map_err(std::io::Error::other)??;
            let pasted = pasted.ok_or(AccountError::Stopped)?;
            tries += 1;
            match Pasted::read(&pasted, redirect) {
                Ok(pasted) => {
                    check_issuer(client, &pasted).await?;
                    break pasted.code(&request)?;
                }
                Err(problem) if tries < TRIES && somebody_is_there() => {
                    output.say(format_args!("{problem}"));
                }
                Err(problem) => return Err(AccountError::Enrolment(problem.to_owned())),
            }
        };
        Ok(client.finish(&request, redirect, &code).await?)
    }
}

/// `Ok(Err)`: the provider has no device code for this client, and why.
async fn by_device(
    client: &Client,
    title: &str,
    who: &str,
    output: Output<'_>,
) -> Result<Result<Tokens, String>, AccountError> {
    let device = match client.device().await {
        Ok(device) => device,
        Err(TokenError::Misconfigured(reason) | TokenError::Refused(reason)) => {
            return Ok(Err(shown(&reason).to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let complete = device.verification_uri_complete.as_ref();
    let short = &device.verification_uri;
    let scanned = complete.unwrap_or(short);
    let minutes = device.expires_in.as_secs().div_ceil(60);
    output.object(&json!({
        "event": "sign_in", "method": "device", "address": who,
        "verification_uri": short.as_str(), "user_code": device.user_code,
        "verification_uri_complete": complete.map(Url::as_str),
        "expires_in": device.expires_in.as_secs(),
        "qr": match output.json {
            true => qr::modules(scanned.as_str()),
            false => Vec::new(),
        },
    }));
    output.say(format_args!(
        "On any device, open\n\n  {short}\n\ntype the code\n\n  {}\n\nand sign in to {} as {}. The code is good for {minutes} minutes.",
        shown(&device.user_code),
        shown(title),
        shown(who),
    ));
    if let Some(code) = qr::for_terminal(scanned.as_str()).filter(|_| !output.json) {
        output.say(format_args!("\nOr scan this:\n\n{code}"));
    }
    output.say(format_args!("\nWaiting …"));
    Ok(Ok(client.device_tokens(&device).await?))
}

/// What the browser came back with.
#[derive(Debug)]
struct Pasted {
    /// `None`: only the code was pasted.
    parameters: Option<Vec<(String, Secret)>>,
    bare: Secret,
}

impl Pasted {
    /// Reads the address that the browser ended on, or its query, or only the code. Errors
    /// are for whoever pasted, and repeat nothing of it.
    fn read(pasted: &Secret, redirect: &Url) -> Result<Self, &'static str> {
        let text = pasted.reveal().trim();
        if text.is_empty() {
            return Err("That was nothing.");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("That has spaces in it: copy the whole address, and only it.");
        }
        let query: Cow<'_, str> = if text.contains("://") {
            let url = Url::parse(text).map_err(|_| "That is no address.")?;
            let place = |url: &Url| {
                let port = url.port_or_known_default();
                (
                    url.scheme().to_owned(),
                    url.host_str().map(str::to_owned),
                    port,
                    url.path().to_owned(),
                )
            };
            if place(&url) != place(redirect) {
                return Err(
                    "That is not the address where the browser ends: sign in, and copy the one after it.",
                );
            }
            url.query().unwrap_or_default().to_owned().into()
        } else {
            text.trim_start_matches('?').into()
        };
        let is_query = text.contains("://") || query.contains("code=") || query.contains("error=");
        let decoded = |text: &str| -> Vec<(String, Secret)> {
            let pairs = form_urlencoded::parse(text.as_bytes());
            pairs
                .map(|(name, value)| (name.into_owned(), Secret::from(&*value)))
                .collect()
        };
        if is_query {
            return Ok(Self {
                parameters: Some(decoded(&query)),
                bare: Secret::from(""),
            });
        }
        // As it stands in an address, or as a page shows it.
        let bare = match text.contains('%') {
            true => decoded(&format!("code={text}")).pop().map(|(_, code)| code),
            false => Some(Secret::from(text)),
        };
        Ok(Self {
            parameters: None,
            bare: bare.ok_or("That is no code.")?,
        })
    }

    /// A parameter, which there is once at most (RFC 6749 §3.1).
    fn one(&self, name: &str) -> Result<Option<&Secret>, TokenError> {
        let all = self.parameters.iter().flatten();
        let mut found = all
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value);
        let first = found.next();
        match found.next() {
            Some(_) => Err(TokenError::NotSignedIn(format!(
                "the address has {name} twice"
            ))),
            None => Ok(first),
        }
    }

    /// The code (RFC 6749 §4.1.2), where it answers this request. A code that was pasted
    /// alone is bound to the request by its verifier (RFC 7636 §4.6).
    fn code(&self, request: &AuthorizationRequest) -> Result<Secret, TokenError> {
        if self.parameters.is_none() {
            return Ok(self.bare.clone());
        }
        let refused = |reason: &str| Err(TokenError::NotSignedIn(reason.to_owned()));
        match self.one("state")? {
            Some(state) if *state == request.state => {}
            Some(_) => return refused("the address is of another sign-in: use the newest one"),
            None => return refused("the address is not whole: it has no state"),
        }
        if let Some(error) = self.one("error")? {
            let mut reason = error.reveal().to_owned();
            if let Some(more) = self.one("error_description")? {
                reason = format!("{reason}: {}", more.reveal());
            }
            return refused(&reason.chars().take(300).collect::<String>());
        }
        match self.one("code")? {
            Some(code) if !code.reveal().is_empty() => Ok(code.clone()),
            _ => refused("the address has no code"),
        }
    }
}

/// Where an address was pasted, it names the provider that it should.
async fn check_issuer(client: &Client, pasted: &Pasted) -> Result<(), TokenError> {
    if pasted.parameters.is_none() {
        return Ok(());
    }
    let iss = pasted.one("iss")?.map(Secret::reveal);
    client.check_issuer(iss).await
}
