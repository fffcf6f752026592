//! What the process as a whole is allowed: no core dumps, many descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps credentials out of core dumps and debuggers, and lets the process
/// have as many descriptors as it may. Where the system refuses, popgate runs
/// all the same.
pub fn harden() {
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    );
}
