//! Whether every slot decrypts to what the rounded model gives in the clear.

use std::num::NonZeroUsize;

use anyhow::ensure;
use cipherscore_engine::bulk::kernel::Kernel;
use rayon::prelude::*;

use super::Amount;
use super::scoring::evaluate;
use super::subjects::Subject;
use crate::machine::Watch;
use crate::numbers::Numbers;
use crate::table::{Table, Target};

/// Once: random rows are encrypted, evaluated and decrypted on all threads, a ring batch at a time.
pub(super) fn measure(subject: &Subject, amount: &Amount, table: &mut Table) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let evaluator = subject.evaluator(Kernel::best(), threads)?;
    let key = subject.prepared(&evaluator)?;
    let inputs = &subject.client.model.inputs;
    let program = &subject.server.program;
    let mut numbers = Numbers::new(4);
    let watch = Watch::start(Vec::new());
    let (mut done, mut different) = (0, 0);
    while done < amount.random_rows {
        let count = subject.dimension().min(amount.random_rows - done);
        let rows = subject.rows(count, &mut numbers);
        let upload = subject.encryption.encrypt(&rows)?.body;
        let reply = evaluate(&evaluator, key.as_ref(), count, &upload)?;
        let found = subject.encryption.decrypt(&reply, u32::try_from(count)?, None)?;
        let encoded = inputs.encode(&rows.rows().collect::<Vec<_>>(), done)?;
        let columns = (0..subject.server.specs.columns).map(|column| {
            let mut bits = vec![0; count];
            encoded.fill(column, 0, &mut bits);
            bits
        });
        let columns: Vec<_> = columns.collect();
        let wrong = found.par_rows().enumerate().map(|(row, found)| {
            let bits: Vec<_> = columns.iter().map(|column| column[row]).collect();
            let expected = program.interpret(&bits)?;
            ensure!(expected.len() == found.len(), "a row of another number of outputs");
            Ok(expected.iter().zip(found).filter(|(expected, found)| expected != found).count())
        });
        different += wrong.sum::<anyhow::Result<usize>>()?;
        done += count;
    }
    let name = format!("{}: slots of {done} random rows that are wrong", subject.name);
    let target = Some(Target::AtMost(0.0));
    table.add(name, "slots", vec![different as f64], target, watch.others());
    Ok(())
}
