//! Names of workers.

/// Longest name of a worker, in characters.
pub const MAX_WORKER_LENGTH: usize = 128;

/// Whether a name leaves no way out of a name in the store, nor out of a line on a terminal: 1 to
/// [`MAX_WORKER_LENGTH`] characters of `a-z`, `A-Z`, `0-9`, `-`, `.` and `_`.
pub(crate) fn is_worker_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=MAX_WORKER_LENGTH).contains(&name.len()) && name.bytes().all(allowed)
}
