//! Why an HTTP request came to nothing, by who has to do something about it.

use std::error::Error;
use std::io;

/// There is no answer. Nothing of the request is in it: a URL may hold secrets.
#[derive(Clone, Copy, Debug)]
pub enum HttpFailure<'a> {
    /// The certificate does not verify: somebody has to see to it.
    Certificate(&'a rustls::Error),
    /// TLS failed otherwise.
    Tls(&'a rustls::Error),
    /// Nothing came in time.
    TimedOut,
    /// There is no connection.
    NoConnection,
    /// The connection was lost.
    Lost,
}

impl<'a> HttpFailure<'a> {
    /// What lies behind an error of a request.
    pub fn of(error: &'a reqwest::Error) -> Self {
        let mut source = error.source();
        while let Some(inner) = source {
            match tls_error(inner) {
                Some(
                    tls @ (rustls::Error::InvalidCertificate(_)
                    | rustls::Error::NoCertificatesPresented),
                ) => return Self::Certificate(tls),
                Some(tls) => return Self::Tls(tls),
                None => source = inner.source(),
            }
        }
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::NoConnection
        } else {
            Self::Lost
        }
    }
}

/// I/O errors wrap others, also each other, where `source` does not show them.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        error = error.downcast_ref::<io::Error>()?.get_ref()?;
    }
}
