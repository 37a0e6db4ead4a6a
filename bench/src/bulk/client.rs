//! The data owner's side on one thread.

use std::num::NonZeroUsize;

use cipherscore_engine::bulk::kernel::Kernel;

use super::scoring::evaluate;
use super::subjects::Subject;
use super::{Amount, rows_per_second};
use crate::machine::Watch;
use crate::numbers::Numbers;
use crate::table::Table;

/// Encoding of rows and encryption, and decryption, in turn.
pub(super) fn measure(subject: &Subject, amount: &Amount, table: &mut Table) -> anyhow::Result<()> {
    let rows = subject.dimension();
    let count = u32::try_from(rows)?;
    let clear = subject.rows(rows, &mut Numbers::new(3));
    let evaluator = subject.evaluator(Kernel::best(), NonZeroUsize::MIN)?;
    let key = subject.prepared(&evaluator)?;
    let upload = subject.encryption.encrypt(&clear)?.body;
    let reply = evaluate(&evaluator, key.as_ref(), rows, &upload)?;
    let watch = Watch::start(Vec::new());
    let mut values: [Vec<f64>; 2] = Default::default();
    for _ in 0..amount.repetitions {
        values[0].push(rows_per_second(rows, amount.least, || {
            subject.encryption.encrypt(&clear)?;
            Ok(())
        })?);
        values[1].push(rows_per_second(rows, amount.least, || {
            subject.encryption.decrypt(&reply, count, None)?;
            Ok(())
        })?);
    }
    let others = watch.others();
    let [encryption, decryption] = values;
    let name = |what: &str| format!("{}: data owner, one thread, {what}", subject.name);
    table.add(name("encoding and encryption"), "rows/s", encryption, None, others);
    table.add(name("decryption"), "rows/s", decryption, None, others);
    Ok(())
}
