//! Keeps the memory of this process out of files and away from other processes.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// From now on this process leaves no core dump, and others of the same user can neither read its
/// memory nor trace it; root can. Programs that it starts begin anew, but for the limit.
///
/// The limit alone is not enough: the kernel does not look at it where dumps go to a program. What
/// the kernel refuses stays as it is, since there is nothing else to do about it.
pub(crate) fn forbid() {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, nothing);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_agrees() {
        forbid();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
    }
}
