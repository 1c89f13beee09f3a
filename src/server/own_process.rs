//! What this process gives up for the sake of its secrets: nobody finds its memory in a core file, and other processes of its user cannot
//! read it. It knows nothing of what the memory holds.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// To be called before the first secret is read. What is started from here inherits that there are no core files: Envoy holds tokens and keys
/// as well.
///
/// # Errors
/// The system's, which are not to be expected: nobody may be kept from giving something up.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A core may also go to a program (`core_pattern`), which the limit does not stop; and who may trace us could read everything.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rustix::process::getrlimit;

    use super::*;

    #[test]
    fn there_is_no_core_file_and_nobody_may_look() {
        keep_memory_private().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Core);
        assert_eq!((current, maximum), (Some(0), Some(0)));
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    }
}
