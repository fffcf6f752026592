//! Secrets in files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{ConfigError, Given};
use crate::secret::Secret;

/// Octets of the longest secret that is read.
pub const LONGEST_SECRET: usize = 16 * 1024;

/// Reads a secret from a file. The line end behind it is not part of it.
pub fn read_secret(given: &Given<PathBuf>) -> Result<Secret, ConfigError> {
    let name = given.value.display();
    let octets =
        read(&given.value).map_err(|error| given.wrong(format!("cannot read {name}: {error}")))?;
    if octets.len() > LONGEST_SECRET {
        return Err(given.wrong(format!("{name} is too long for a password or a key")));
    }
    let Ok(text) = std::str::from_utf8(&octets) else {
        return Err(given.wrong(format!("{name} is not UTF-8 text")));
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(given.wrong(format!("{name} is empty")));
    }
    Ok(Secret::from(text))
}

/// The same for a service: one that everybody can read is warned of.
pub(super) fn read_guarded(
    given: &Given<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Secret, ConfigError> {
    let secret = read_secret(given)?;
    if fs::metadata(&given.value).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
        warnings.push(format!(
            "{}: every user of this machine can read {}: chmod o-r it",
            given.origin,
            given.value.display()
        ));
    }
    Ok(secret)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // All at once: a buffer that grows leaves copies behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 1));
    File::open(path)?
        .take(LONGEST_SECRET as u64 + 1)
        .read_to_end(&mut octets)?;
    Ok(octets)
}
