//! The connection as commands are sent over it at first.

use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::config::{Config, Security};
use crate::upstream::UpstreamError;
pub(super) use crate::upstream::transport::{Stream, tcp, tls};

/// Under TLS where that is implicit.
pub(super) async fn secure(stream: TcpStream, config: &Config) -> Result<Stream, UpstreamError> {
    match config.security {
        Security::ImplicitTls => tls(stream, &config.host, &config.tls).await,
        Security::StartTls | Security::Cleartext => Ok(Either::Left(stream)),
    }
}
