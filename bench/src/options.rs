//! How is measured, whatever is measured.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// One repetition of little work: to see that it works.
    #[arg(long)]
    pub(crate) quick: bool,
}
