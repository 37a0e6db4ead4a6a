//! What must hold for any bytes, door by door.
//!
//! Each check hands bytes to a door of the workspace that strangers can reach, and panics when a
//! property does not hold; a panic, an overflow or a hang of the code behind the door is the other
//! thing that is looked for. The fuzz targets of `fuzz/` call them with inputs that libFuzzer makes
//! up, the test `corpus` of this crate with those that are kept.

mod bulk;
mod circuits;
mod frames;
mod queue;
pub mod seeds;
mod single_rows;
mod trained;
mod wire;
mod zips;

/// A check.
pub type Check = fn(&[u8]);

/// All checks, by the name of their target.
///
/// Four more targets have their checks where private parsers are, in `concrete` and `common`.
pub const CHECKS: &[(&str, Check)] = &[
    ("zip", zips::zip),
    ("server_zip", zips::server_zip),
    ("client_zip", zips::client_zip),
    ("mlir", zips::mlir),
    ("specs", zips::specs),
    ("processing", zips::processing),
    ("circuit", circuits::circuit),
    ("value", wire::value),
    ("evaluation_keys", wire::evaluation_keys),
    ("client_keys", wire::client_keys),
    ("rows", wire::rows),
    ("circuit_job", wire::circuit_job),
    ("program", bulk::program),
    ("bulk_server_zip", bulk::server_zip),
    ("bulk_client_zip", bulk::client_zip),
    ("bulk_job", bulk::job),
    ("bulk_reply", bulk::reply),
    ("bulk_keys", bulk::keys),
    ("row_program", single_rows::program),
    ("row_server_zip", single_rows::server_zip),
    ("row_client_zip", single_rows::client_zip),
    ("row_job", single_rows::job),
    ("row_reply", single_rows::reply),
    ("row_keys", single_rows::keys),
    ("job", queue::job),
    ("reply", queue::reply),
    ("stored", queue::stored),
    ("xgboost_json", trained::xgboost_json),
    ("xgboost_ubjson", trained::xgboost_ubjson),
    ("lightgbm", trained::lightgbm),
    ("onnx", trained::onnx),
    ("compile", trained::compile),
    ("ranges", trained::ranges),
];

/// The check of a target.
///
/// # Panics
///
/// If there is none of this name.
pub fn check(target: &str) -> Check {
    let found = CHECKS.iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("there is no check named {target}")).1
}
