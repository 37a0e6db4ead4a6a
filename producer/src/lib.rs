//! The data owner's side: the key folder, rows in, scores out.

pub mod files;
pub mod key_folder;
pub mod rows;
