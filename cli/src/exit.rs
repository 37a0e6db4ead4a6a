//! How the program ends: the one table of exit codes.

use std::fmt;
use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// Something failed, and standard error says what.
    Error = 1,
    /// Done, except that some rows have no scores or results.
    SomeRowsFailed = 2,
    /// Computed, and not what was expected.
    Disagrees = 3,
    /// The command line is none: `EX_USAGE` of sysexits.h.
    Usage = 64,
    /// Stopped by Ctrl-C: 128 and the number of SIGINT, as shells have it.
    Interrupted = 130,
}

/// For the end of `--help`.
pub(crate) const HELP: &str = "Exit codes: 0 done, 1 error, 2 some rows without scores, 3 disagrees, \
                               64 usage, 130 interrupted.";

/// A command line that is none, where the parser does not see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsageError(pub(crate) &'static str);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: &str = include_str!("../../docs/operations.md");
    const ALL: [Exit; 6] = [
        Exit::Done,
        Exit::Error,
        Exit::SomeRowsFailed,
        Exit::Disagrees,
        Exit::Usage,
        Exit::Interrupted,
    ];

    /// Code and first words of each line of the documented table.
    fn documented() -> Vec<(u8, &'static str)> {
        let section = OPERATIONS.split_once("\n## Exit codes\n").unwrap().1;
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
        let cells = rows.filter_map(|row| row.split_once(" | "));
        cells.filter_map(|(code, meaning)| Some((code.parse().ok()?, meaning))).collect()
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let documented = documented();
        let reserved = |row: &&(u8, &str)| row.1.starts_with("reserved");
        let (reserved, used): (Vec<_>, Vec<_>) = documented.iter().partition(|row| reserved(row));
        let codes: Vec<_> = used.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ALL.map(|exit| exit as u8));
        assert_eq!(reserved.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [4]);
        for (code, _) in used {
            assert!(HELP.contains(&format!(" {code} ")), "{code}");
        }
    }
}
