//! What a row costs in the row engine: the worker's side part by part, the data owner's, and bytes.
//!
//! Models are random trees of the shapes that libraries train; what a row costs depends on nothing
//! else.

mod engine;
#[cfg(feature = "prepared-rows")]
mod prepared;
mod shapes;

use std::num::NonZeroU32;

use self::shapes::{SHAPES, Subject};
use crate::machine::Machine;
use crate::options::Options;
use crate::table::Table;

/// How much is measured.
struct Amount {
    repetitions: usize,
    /// Rows of a repetition, of which the median is taken.
    rows: usize,
}

const FULL: Amount = Amount { repetitions: 5, rows: 50 };
const QUICK: Amount = Amount { repetitions: 1, rows: 3 };

/// Every upload has one row.
const ONE_ROW: NonZeroU32 = NonZeroU32::MIN;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let amount = if options.quick { QUICK } else { FULL };
    let mut table = Table::new(Machine::here(), amount.repetitions);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut models = String::new();
    for shape in SHAPES {
        eprintln!("{}", shape.name);
        let subject = Subject::new(shape)?;
        models += &format!("* {}\n", subject.describe());
        one_thread.install(|| engine::measure(&subject, &amount, &mut table))?;
        #[cfg(feature = "prepared-rows")]
        one_thread.install(|| prepared::measure(&subject, &amount, &mut table))?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{models}\n{}", table.markdown()),
    }
    Ok(())
}
