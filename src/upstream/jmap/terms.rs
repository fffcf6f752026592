//! What a policy asks of a JMAP server, whatever account it is.

use crate::maildrop::{DeletePolicy, Ingredient, Policy, SeenPolicy};
use crate::upstream::UpstreamError;

/// Whether the account has to be writable. What `hide` cannot write there, the
/// store keeps.
pub(super) fn needs_write(policy: &Policy) -> bool {
    let deletes = policy.delete.writes() && policy.delete != DeletePolicy::Hide;
    deletes || policy.seen != SeenPolicy::Never || policy.expire_after.is_some()
}

/// JMAP has blobIds and Email ids, and nothing else that names messages.
pub(super) fn check_unique_ids(policy: &Policy) -> Result<(), UpstreamError> {
    let Some(format) = &policy.unique_ids else {
        return Ok(());
    };
    let lacking = format
        .ingredients()
        .find_map(|ingredient| match ingredient {
            Ingredient::BlobId | Ingredient::EmailId => None,
            Ingredient::Uid | Ingredient::UidValidity => {
                Some("unique_ids needs UIDs: over JMAP use \"jmap\" or \"emailid\"")
            }
            Ingredient::Guid | Ingredient::FileName | Ingredient::HeaderMd5 => {
                Some("unique_ids needs GUIDs: over JMAP use \"jmap\" or \"emailid\"")
            }
            Ingredient::GmailId => {
                Some("unique_ids needs Gmail's ids: over JMAP use \"jmap\" or \"emailid\"")
            }
        });
    lacking.map_or(Ok(()), |reason| {
        Err(UpstreamError::Misconfigured(reason.into()))
    })
}
