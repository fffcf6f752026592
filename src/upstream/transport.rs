//! TCP and TLS to a mail server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{Reason, UpstreamError};

/// A connection, with or without TLS.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Silence on an established connection before the kernel asks whether the
/// server is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long the server may leave what was sent unacknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// Opens a TCP connection to whichever of the host's addresses answers.
pub async fn tcp(host: &str, port: u16) -> Result<TcpStream, UpstreamError> {
    let failed = |error: io::Error| {
        UpstreamError::temporary(Reason::quoting("cannot connect", &error.to_string()))
    };
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    // A command goes out in one write and wants its answer now.
    stream.set_nodelay(true).map_err(failed)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive).map_err(failed)?;
    #[cfg(target_os = "linux")]
    socket
        .set_tcp_user_timeout(Some(UNACKNOWLEDGED))
        .map_err(failed)?;
    Ok(stream)
}

/// TLS over `stream`. The chain and the host's name are verified, always.
pub async fn tls(
    stream: TcpStream,
    host: &str,
    config: &Arc<rustls::ClientConfig>,
) -> Result<Stream, UpstreamError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        UpstreamError::Misconfigured("the host name cannot have a certificate".into())
    })?;
    let connector = TlsConnector::from(Arc::clone(config));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Either::Right(Box::new(stream))),
        Err(error) => Err(tls_error(&error)),
    }
}

/// A certificate that does not verify, or a server that speaks no TLS that is
/// still allowed, is for the operator; anything else may be an outage.
fn tls_error(error: &io::Error) -> UpstreamError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let reason = Reason::quoting("TLS", &error.to_string());
    match inner {
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion),
        ) => UpstreamError::Misconfigured(reason),
        _ => UpstreamError::temporary(reason),
    }
}
