//! Device passwords: generated, or chosen by a person.

use super::{Account, Accounts, AccountsError, Secret};

/// A new device password. It is shown once.
#[derive(Debug)]
pub struct DevicePassword {
    /// The id of its device.
    pub device: String,
    /// The password.
    pub password: Secret,
}

impl Accounts {
    /// Gives an account a password for one more device: a generated one of at least
    /// 128 bits, or `chosen`. `by`: the password of a device that it has, needed
    /// where secrets open only with one. The account is changed, not stored.
    pub async fn add_device(
        &self,
        _account: &mut Account,
        _name: &str,
        _chosen: Option<Secret>,
        _by: Option<&Secret>,
    ) -> Result<DevicePassword, AccountsError> {
        todo!()
    }

    /// Takes the password of a device away. `false`: there is no such device. The
    /// account is changed, not stored.
    pub fn revoke_device(&self, _account: &mut Account, _id: &str) -> bool {
        todo!()
    }
}
