//! The beginning and the end of a session whose connection comes from the last
//! one, or goes on to the next one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::early::Early;
use super::login::{LoggedIn, are_sendable, conceal};
use super::resting::Rested;
use super::session::{ImapSession, Messages, Place, connect};
use crate::metrics::Counted;
use crate::sasl::Credentials;
use crate::upstream::UpstreamError;

/// The longest silence of a connection that has rested, until it has proved
/// itself.
const KEPT: Duration = Duration::from_secs(5);

impl ImapSession {
    /// Logs in, or takes over a connection that these credentials have logged in
    /// before; the mailbox is opened later.
    pub async fn begin(
        place: Place,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Self, UpstreamError> {
        if !are_sendable(&credentials) {
            return Err(UpstreamError::Authentication);
        }
        place.shared.pauses.check(credentials.mailbox())?;
        let resting = Arc::clone(&place.shared.resting);
        let told = place.config.send_client_address.then_some(client);
        let bond = resting.bond(&credentials, told, &place.policy);
        let rested = match &bond {
            Some(bond) => resting.take(bond).await,
            None => None,
        };
        let mut session = match rested {
            Some(rested) => Self::resume(place, credentials, client, rested),
            None => Self::login(place, credentials, client).await?,
        };
        if let Some(bond) = &bond {
            session.turn = resting.logged_in(bond);
        }
        session.bond = bond;
        Ok(session)
    }

    async fn login(
        place: Place,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Self, UpstreamError> {
        let (config, shared) = (&place.config, &place.shared);
        let early = Early::plan(&place, &credentials).await;
        let mut connected = connect(config, shared, &credentials, client, early).await;
        // Those at rest may be the ones that are too many.
        if let Err(UpstreamError::InUse(_)) = &connected
            && shared.resting.make_room(credentials.mailbox()).await
        {
            connected = connect(config, shared, &credentials, client, None).await;
        }
        let (connected, early) = connected?;
        let LoggedIn {
            connection,
            capabilities,
            ..
        } = connected;
        let mut session = Self::over(place, credentials, client, connection, capabilities);
        session.early = early;
        Ok(session)
    }

    /// Goes on with a connection that has rested.
    fn resume(place: Place, credentials: Credentials, client: IpAddr, rested: Box<Rested>) -> Self {
        let Rested {
            mut connection,
            capabilities,
            layout,
            names,
            logged_in,
            seen,
        } = *rested;
        connection.doubt(KEPT);
        conceal(&mut connection, &credentials);
        let mut session = Self::over(place, credentials, client, connection, capabilities);
        session.is_kept = true;
        session.seen = seen;
        session.layout = layout;
        session.names = names;
        session.logged_in = logged_in;
        session
    }

    /// Begins anew with a login, where a kept connection has failed before the
    /// maildrop was open. Nothing that was learned on the old one counts.
    pub(super) async fn begin_anew(&mut self) -> Result<(), UpstreamError> {
        self.is_kept = false;
        self.is_troubled = false;
        self.connection = None;
        self.layout = None;
        self.names = Vec::new();
        self.folders = Vec::new();
        self.messages = Messages::default();
        self.connected().await.map(drop)
    }

    /// Whether what failed is to be tried again on a new connection.
    pub(super) fn is_kept_to_blame(&self, error: &UpstreamError) -> bool {
        let is_asked_to_wait = matches!(
            error,
            UpstreamError::Temporary {
                retry_after: Some(_),
                ..
            }
        );
        self.is_kept && !is_asked_to_wait
    }

    /// Puts the connection to rest, or gives it back where it may not.
    pub(super) fn rest(&mut self, mut connection: Connection) -> Option<Connection> {
        let Some(bond) = self.bond.take().filter(|_| !self.is_troubled) else {
            return Some(connection);
        };
        connection.forget_secrets();
        // The next session counts its own.
        connection.count_in(Arc::default());
        let rested = Box::new(Rested {
            connection,
            capabilities: std::mem::take(&mut self.capabilities),
            layout: self.layout.take(),
            names: std::mem::take(&mut self.names),
            logged_in: self.logged_in,
            seen: self.seen.take().filter(|_| self.selected == Some(0)),
        });
        let counted = Counted::new(&self.metrics.upstream_resting);
        let rests = self.shared.resting.rest(bond, rested, counted);
        rests.err().map(|rested| rested.connection)
    }
}
