//! The sandbox: what the child takes from itself before it runs a stranger's machine code.
//!
//! Unsafe because every step is a system call that Rust has no safe name for.
#![allow(unsafe_code)]

use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::recorder::RecordError;
use crate::recorder::limits::{MAX_ADDRESS_SPACE_BYTES, MAX_CPU_SECONDS, MAX_STACK_BYTES};

/// Highest descriptor that is closed one by one on kernels without `close_range`.
const MAX_DESCRIPTOR: i32 = 1 << 16;

/// The C libraries disagree about the type of `RLIMIT_CPU` and its like.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn sandbox(what: &str) -> RecordError {
    RecordError::Sandbox(format!("{what}: {}", io::Error::last_os_error()))
}

/// First half, before the request is read: resource limits, no privileges, no descriptors.
pub(super) fn limit() -> Result<(), RecordError> {
    set_limit(libc::RLIMIT_CORE, 0, "core")?;
    set_limit(libc::RLIMIT_CPU, MAX_CPU_SECONDS, "processor time")?;
    set_limit(libc::RLIMIT_AS, MAX_ADDRESS_SPACE_BYTES, "address space")?;
    set_limit(libc::RLIMIT_FSIZE, 0, "file size")?;
    set_limit(libc::RLIMIT_NPROC, 0, "processes")?;
    set_limit(libc::RLIMIT_STACK, MAX_STACK_BYTES, "stack")?;

    volunteer_for_the_killer();
    set_option(libc::PR_SET_NO_NEW_PRIVS, 1, "no new privileges")?;
    // Neither a debugger of the same user nor /proc may look at the child or reach in.
    set_option(libc::PR_SET_DUMPABLE, 0, "not dumpable")?;
    // Nobody is left to read the answer when the parent dies.
    set_option(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into(), "parent's death")?;

    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: restores the default action; no handler of ours is involved. Rust's handler
        // would need system calls that the filter forbids, and so hide a crash behind SIGSYS.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(sandbox("signals"));
        }
    }
    close_descriptors();
    Ok(())
}

/// When memory runs out, this process goes first, and not the importer or its neighbours. Where
/// there is no such file, or it is not ours, the address space is still limited.
fn volunteer_for_the_killer() {
    const FIRST_OF_ALL: &str = "1000";
    drop(std::fs::write("/proc/self/oom_score_adj", FIRST_OF_ALL));
}

/// Second half, once the code is mapped: no new descriptors, and the system call filter.
pub(super) fn confine() -> Result<(), RecordError> {
    set_limit(libc::RLIMIT_NOFILE, 0, "descriptors")?;
    let filter = filter().map_err(|error| RecordError::Sandbox(error.to_string()))?;
    // All threads: there is only this one, and should that ever change, none escapes.
    seccompiler::apply_filter_all_threads(&filter)
        .map_err(|error| RecordError::Sandbox(error.to_string()))
}

/// The system calls that recording needs; any other one kills the process.
///
/// Memory comes from `mmap`, `mremap`, `brk`, as `malloc` asks for it: private, of no file, of
/// ordinary pages, where the kernel chooses, never executable. `write` is for the answer, on the
/// one descriptor that is left. An abort of the runtime (out of memory) signals the process itself.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let without = |argument, flags: u64| {
        let masked = SeccompCmpOp::MaskedEq(flags);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, 0)
    };
    let not_executable = || without(2, libc::PROT_EXEC.cast_unsigned().into());
    let ordinary = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let other_flags = u64::from(!ordinary.cast_unsigned());
    // Both: without the second, memory would be that of a descriptor.
    let private = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned());
    let no_file = || {
        let masked = SeccompCmpOp::MaskedEq(private);
        SeccompCondition::new(3, SeccompCmpArgLen::Dword, masked, private)
    };
    let may_move = libc::MREMAP_MAYMOVE.cast_unsigned().into();
    // Other advice can take pages of memory from the whole machine, if root gives it.
    let advice = |advice: i32| SeccompRule::new(vec![is(2, advice.cast_unsigned().into())?]);
    let own_process = u64::from(std::process::id());
    let abort = libc::SIGABRT.cast_unsigned().into();
    let rules = [
        (libc::SYS_write, vec![SeccompRule::new(vec![is(0, 1)?])?]),
        (
            libc::SYS_mmap,
            vec![SeccompRule::new(vec![not_executable()?, no_file()?, without(3, other_flags)?])?],
        ),
        (libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable()?])?]),
        (libc::SYS_mremap, vec![SeccompRule::new(vec![is(3, may_move)?])?]),
        (libc::SYS_munmap, vec![]),
        (libc::SYS_madvise, vec![advice(libc::MADV_DONTNEED)?, advice(libc::MADV_FREE)?]),
        (libc::SYS_brk, vec![]),
        (libc::SYS_exit, vec![]),
        (libc::SYS_exit_group, vec![]),
        (libc::SYS_rt_sigprocmask, vec![]),
        (libc::SYS_getpid, vec![]),
        (libc::SYS_gettid, vec![]),
        (libc::SYS_tgkill, vec![SeccompRule::new(vec![is(0, own_process)?, is(2, abort)?])?]),
    ];
    SeccompFilter::new(
        rules.into(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()
}

/// Lowers a limit for good: soft and hard. A lower hard limit that is already set stays.
fn set_limit(resource: Resource, value: u64, what: &str) -> Result<(), RecordError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the write.
    if unsafe { libc::getrlimit(resource, &mut limit) } != 0 {
        return Err(sandbox(what));
    }
    let value = value.min(limit.rlim_max);
    // A processor time limit that is soft and hard at once kills without telling why.
    let slack = if resource == libc::RLIMIT_CPU { 1 } else { 0 };
    limit = libc::rlimit { rlim_cur: value, rlim_max: limit.rlim_max.min(value + slack) };
    // SAFETY: `limit` is valid for the read.
    match unsafe { libc::setrlimit(resource, &limit) } {
        0 => Ok(()),
        _ => Err(sandbox(what)),
    }
}

fn set_option(option: i32, value: libc::c_ulong, what: &str) -> Result<(), RecordError> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: these options take integers, no pointers.
    match unsafe { libc::prctl(option, value, UNUSED, UNUSED, UNUSED) } {
        0 => Ok(()),
        _ => Err(sandbox(what)),
    }
}

/// Closes all descriptors but stdin and stdout.
fn close_descriptors() {
    const FIRST: u32 = 2;
    // SAFETY: no descriptor above 1 is in use by this process.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, 0) } == 0 {
        return;
    }
    for descriptor in FIRST.cast_signed()..MAX_DESCRIPTOR {
        // SAFETY: as above; closing a descriptor that is not open does nothing.
        unsafe { libc::close(descriptor) };
    }
}

/// Closes stdin once the request is read: only stdout is left.
pub(super) fn close_stdin() {
    // SAFETY: nothing reads stdin any more.
    unsafe { libc::close(0) };
}

/// Writes the answer and ends the process at once: no destructor, no exit handler, no unwinding.
pub(super) fn write_and_exit(mut bytes: &[u8]) -> ! {
    while !bytes.is_empty() {
        // SAFETY: the buffer is valid for reads of its length.
        let written = unsafe { libc::write(1, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = &bytes[written..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // SAFETY: ends the process; always sound.
    unsafe { libc::_exit(0) }
}
