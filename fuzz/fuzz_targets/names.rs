//! What stands in a user name and in `unique_ids`: a folder holds nothing that a
//! protocol could take for its own syntax, and a format makes unique ids only.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::maildrop::{Ingredients, UniqueId, UniqueIdFormat};
use popgate::sasl::Credentials;
use popgate::server::policies::Policies;

fuzz_target!(|text: &str| {
    let known = Ingredients {
        uid: Some(7),
        uid_validity: Some(u32::MAX),
        guid: Some("1234.M5P6.host,S=7"),
        email_id: Some("M1"),
        gmail_id: Some(u64::MAX),
        blob_id: Some("Gb1.2"),
    };
    if let Ok(format) = text.parse::<UniqueIdFormat>() {
        if let Ok(id) = format.unique_id(&known) {
            assert_eq!(UniqueId::new(id.as_str().to_owned()), Some(id));
        }
    }
    let Ok(credentials) = Credentials::password(text, "x") else {
        return;
    };
    let Ok(admission) = Policies::default().admit(credentials) else {
        return;
    };
    let user = admission.credentials.user();
    assert!(!user.is_empty() && user.len() <= text.len());
    for folder in &admission.rules.policy.folders {
        let folder = folder.as_str();
        assert!(!folder.is_empty() && !folder.contains(['*', '%']) && !folder.contains(".."));
        assert!(!folder.chars().any(char::is_control));
    }
});
