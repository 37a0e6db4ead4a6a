//! Records the circuit of a Concrete shared object; started by the importer, not by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    cipherscore_concrete::recorder::child_main()
}
