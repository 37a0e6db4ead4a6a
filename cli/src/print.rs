//! Lines on standard output. A reader that went away, such as `head`, ends the program quietly:
//! what was asked for is done by the time that it is reported.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process;

/// As `println!`, which would panic when nobody reads.
macro_rules! say {
    ($($argument:tt)*) => { $crate::print::line(format_args!($($argument)*)) };
}
pub(crate) use say;

pub(crate) fn line(text: Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(0),
        // As for standard error, there is nobody left to tell.
        _ => {}
    }
}
