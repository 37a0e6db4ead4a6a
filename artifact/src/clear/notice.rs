//! What is said of everything that is not encrypted.

/// First bytes of all that this engine makes.
pub const NOTICE: &[u8] = b"NOTHING IN THIS IS ENCRYPTED: cipherscore, clear engine\n";
