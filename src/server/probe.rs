//! Looks whether a mailbox opens, for whoever enrols.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;

use crate::accounts::{Probe, ProbeError};
use crate::maildrop::Policy;
use crate::sasl::Credentials;
use crate::upstream::{Upstream, UpstreamError, Upstreams};

/// Logs in as a session would, finds the INBOX, and reads nothing.
#[derive(Debug)]
pub struct UpstreamProbe {
    upstreams: Arc<Upstreams>,
    gateway: Option<String>,
}

/// Whom the upstream is told about, where it is told of clients.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl UpstreamProbe {
    /// `gateway` is the URL of the gateway's own upstream.
    pub fn new(upstreams: Arc<Upstreams>, gateway: Option<String>) -> Self {
        Self { upstreams, gateway }
    }

    /// Whether this URL is that of a mail server. Errors are in words.
    pub fn check(&self, url: &str) -> Result<(), String> {
        let found = self.upstream(url);
        found.map(drop).map_err(|error| error.to_string())
    }

    fn upstream(&self, url: &str) -> Result<Arc<dyn Upstream>, UpstreamError> {
        match self.upstreams.gateway() {
            Some(own) if self.gateway.as_deref() == Some(url) => Ok(Arc::clone(own)),
            _ => self.upstreams.at(url),
        }
    }
}

#[async_trait]
impl Probe for UpstreamProbe {
    async fn probe(
        &self,
        upstream: &str,
        credentials: Credentials,
        delegate: Option<&str>,
    ) -> Result<(), ProbeError> {
        let upstream = self.upstream(upstream).map_err(blamed)?;
        // Where a login cannot name the mailbox, it is the delegate's.
        let credentials = match delegate {
            Some(delegate) if !upstream.opens_by_name() => {
                credentials.for_mailbox(delegate.to_owned())
            }
            _ => credentials,
        };
        let policy = Arc::new(Policy::default().read_only());
        let mut session = upstream
            .login(credentials, HERE, policy)
            .await
            .map_err(blamed)?;
        let is_sure = session.names_its_user();
        let found = session.folders().await;
        session.close().await;
        found.map_err(blamed)?;
        if !is_sure {
            // Else anybody's token would enrol the address that he types.
            let reason = "the mail server does not say whose mailbox a token opens";
            return Err(ProbeError::Misconfigured(reason.to_owned()));
        }
        Ok(())
    }
}

fn blamed(error: UpstreamError) -> ProbeError {
    match error {
        UpstreamError::Authentication => ProbeError::Refused,
        UpstreamError::Misconfigured(reason) | UpstreamError::NoFolder(reason) => {
            ProbeError::Misconfigured(reason.to_string())
        }
        UpstreamError::Temporary { .. }
        | UpstreamError::InUse(_)
        | UpstreamError::Gone
        | UpstreamError::Protocol(_) => ProbeError::Temporary(error.to_string()),
    }
}
