//! What `popgate check` tells an operator of an upstream.

/// What a step of `popgate check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// It works, but the operator should know.
    Warning(String),
    /// It does not work.
    Bad {
        /// What was seen.
        seen: String,
        /// What to do about it.
        advice: String,
    },
}

/// What to do about a certificate, by what rustls says of it.
pub(super) fn certificate_advice(seen: &str) -> Option<&'static str> {
    let says = |words: &str| seen.contains(words);
    Some(if says("UnknownIssuer") || says("CaUsedAsEndEntity") {
        "the certificate is not signed by a known authority: set `ca_file` to the authority's certificate"
    } else if says("NotValidForName") {
        "the certificate is for other names: use one of them as the host in `upstream`"
    } else if says("Expired") {
        "the server's certificate has expired: renew it there (or mend this machine's clock)"
    } else {
        return None;
    })
}
