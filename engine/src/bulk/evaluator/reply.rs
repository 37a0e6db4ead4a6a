//! The end of a ring batch: its outputs to a part of the reply.

use std::sync::Arc;

use rayon::prelude::*;

use super::blocks::Sums;
use super::{BulkEvaluator, BulkPart, RingBatch};
use crate::bulk::flood::Flood;
use crate::bulk::layout::component_words;
use crate::bulk::parameters::Packing;
use crate::bulk::sanitise::Sanitiser;
use crate::bulk::secret::PublicKey;
use crate::evaluator::EvaluationError;
use crate::rlwe::words::{pack, packed_len};

impl BulkEvaluator {
    /// Hides the model if it is to be hidden, makes the words fewer, and appends them to the reply.
    pub(super) fn close_ring_batch(
        &self,
        mut ring_batch: RingBatch,
        key: Option<&Arc<PublicKey>>,
        reply: &mut Vec<u8>,
    ) -> Result<(), EvaluationError> {
        self.evaluate_masks(&mut ring_batch)?;
        if let (Some(log2_sigma_phase), Some(key)) = (self.log2_sigma_phase, key) {
            self.watch.begin(BulkPart::Sanitise);
            self.sanitise(&mut ring_batch.sums, log2_sigma_phase, key);
        }
        self.watch.begin(BulkPart::Switch);
        let component_len = self.ring.primes().len() * self.ring.dimension();
        if self.switch.kept() < self.ring.primes().len() {
            let outputs = ring_batch.sums.outputs.par_iter_mut();
            outputs
                .flat_map(|output| output.par_chunks_mut(component_len))
                .for_each(|component| self.switch.apply(component));
        }
        for output in &ring_batch.sums.outputs {
            for (index, component) in output.chunks(component_len).enumerate() {
                let words = component_words(self.parameters(), ring_batch.rows, index);
                for words_of_all in component.chunks(self.ring.dimension()).take(self.switch.kept())
                {
                    let start = reply.len();
                    reply.resize(start + packed_len(words), 0);
                    pack(&words_of_all[..words], &mut reply[start..]);
                }
            }
        }
        Ok(())
    }

    /// With rows in coefficients, no block arrives of coefficients without rows; masks have words
    /// there too.
    fn evaluate_masks(&self, ring_batch: &mut RingBatch) -> Result<(), EvaluationError> {
        if self.parameters().packing == Packing::Slots {
            return Ok(());
        }
        let blocks = self.ring.dimension() / super::BLOCK_POINTS;
        while ring_batch.done < blocks {
            let count = (blocks - ring_batch.done).min(super::WAITING_BLOCKS);
            self.evaluate_blocks(ring_batch, &vec![0; count], &[])?;
            ring_batch.done += count;
        }
        Ok(())
    }

    fn sanitise(&self, sums: &mut Sums, log2_sigma_phase: f64, key: &Arc<PublicKey>) {
        let flood = Flood::hiding(log2_sigma_phase, self.parameters().plaintext_modulus);
        let sanitiser = Sanitiser::new(Arc::clone(&self.ring), Arc::clone(key), self.degree, flood);
        let outputs = u32::try_from(self.outputs).unwrap_or(u32::MAX);
        let additions = sanitiser.prepare(outputs).expect("the system gives random numbers");
        for (output, addition) in sums.outputs.iter_mut().zip(additions) {
            addition.add(&self.ring, output);
        }
    }
}
