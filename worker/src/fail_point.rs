//! Places between the steps of a job where a test may end the process, each in the middle of what
//! a crash can interrupt.

/// A named place. Nothing at all without the feature `fail-points`; with it, nothing until the
/// program says what happens there (`fail::cfg_callback`), which `cipherscore-worker` never does.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name);
    };
}
