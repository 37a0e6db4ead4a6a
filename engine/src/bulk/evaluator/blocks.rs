//! Evaluation of blocks.

use rayon::prelude::*;

use super::{BulkEvaluator, BulkPart, RingBatch};
use crate::bulk::tape::{Columns, TapeScratch};
use crate::evaluator::EvaluationError;
use crate::rlwe::mask::MaskId;
use crate::rlwe::primes::BLOCK_POINTS;
use crate::rlwe::words::{packed_len, unpack};

/// Bytes of a cache line, at which the kernels' vectors are best aligned.
const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / size_of::<u64>();

/// The outputs of a ring batch: of each the components, prime by prime, of all N points.
pub(super) struct Sums {
    pub(super) outputs: Vec<Vec<u64>>,
    dimension: usize,
    primes: usize,
}

impl Sums {
    pub(super) fn new(evaluator: &BulkEvaluator) -> Self {
        let (dimension, primes) = (evaluator.ring.dimension(), evaluator.ring.primes().len());
        let words = evaluator.components() * primes * dimension;
        Self { outputs: vec![vec![0; words]; evaluator.outputs], dimension, primes }
    }

    /// Puts the words of one block where they belong.
    fn place(&mut self, prime: usize, block: usize, words: &[u64]) {
        let at = block * BLOCK_POINTS;
        let component_words = self.primes * self.dimension;
        let components =
            self.outputs.iter_mut().flat_map(|output| output.chunks_mut(component_words));
        for (component, words) in components.zip(words.chunks_exact(BLOCK_POINTS)) {
            component[prime * self.dimension + at..][..BLOCK_POINTS].copy_from_slice(words);
        }
    }
}

/// Memory of one thread: the columns of a block, and what the kernel needs.
struct Workspace {
    /// Bodies, then masks.
    columns: Vec<u64>,
    /// Where they begin: at a cache line.
    start: usize,
    scratch: TapeScratch,
}

impl Workspace {
    fn new(columns: usize) -> Self {
        let words = vec![0; 2 * columns * BLOCK_POINTS + LINE_WORDS];
        let start = words.as_ptr().align_offset(LINE_BYTES).min(LINE_WORDS);
        Self { columns: words, start, scratch: TapeScratch::default() }
    }
}

impl BulkEvaluator {
    /// Bytes of a block of so many words a column.
    pub(super) fn block_len(&self, words: usize) -> usize {
        self.ring.primes().len() * self.columns as usize * packed_len(words)
    }

    /// Evaluates the next blocks of a ring batch, of so many words a column each, on all threads.
    pub(super) fn evaluate_blocks(
        &self,
        ring_batch: &mut RingBatch,
        blocks: &[usize],
        mut bytes: &[u8],
    ) -> Result<(), EvaluationError> {
        let primes = self.ring.primes().len();
        let mut parts = Vec::with_capacity(blocks.len() * primes);
        for (index, &words) in blocks.iter().enumerate() {
            let (block, rest) = bytes.split_at(self.block_len(words));
            let of_prime = block.len() / primes;
            bytes = rest;
            for prime in 0..primes {
                let bodies = &block[prime * of_prime..(prime + 1) * of_prime];
                parts.push((ring_batch.done + index, prime, words, bodies));
            }
        }
        let columns = self.columns as usize;
        let evaluated: Vec<_> = parts
            .into_par_iter()
            .map_init(
                || Workspace::new(columns),
                |workspace, (block, prime, words, bodies)| {
                    let masks = MaskIds { ring_batch, prime, block };
                    let out = self.evaluate_block(workspace, masks, words, bodies)?;
                    Ok((prime, block, out))
                },
            )
            .collect::<Result<_, EvaluationError>>()?;
        for (prime, block, out) in evaluated {
            ring_batch.sums.place(prime, block, &out);
        }
        Ok(())
    }

    /// Evaluates one block modulo one prime.
    fn evaluate_block(
        &self,
        workspace: &mut Workspace,
        masks: MaskIds<'_>,
        words: usize,
        packed: &[u8],
    ) -> Result<Vec<u64>, EvaluationError> {
        let length = self.columns as usize * BLOCK_POINTS;
        let all = &mut workspace.columns[workspace.start..][..2 * length];
        let (bodies, mask_words) = all.split_at_mut(length);
        let modulus = self.ring.primes()[masks.prime].modulus();
        let columns = bodies.chunks_exact_mut(BLOCK_POINTS);
        self.watch.begin(BulkPart::Unpack);
        if words == 0 {
            columns.for_each(|column| column.fill(0));
        } else {
            for (column, packed) in columns.zip(packed.chunks_exact(packed_len(words))) {
                let (used, unused) = column.split_at_mut(words);
                unpack(packed, modulus, used).map_err(|error| {
                    EvaluationError::Shape(format!("block {}: {error}", masks.block))
                })?;
                unused.fill(0);
            }
        }
        self.watch.begin(BulkPart::Masks);
        masks.expand(modulus, mask_words);
        self.watch.begin(BulkPart::Kernel);
        let mut out = vec![0; self.outputs * self.components() * BLOCK_POINTS];
        let columns = Columns { bodies, masks: mask_words };
        self.tape.evaluate(self.kernel, masks.prime, columns, &mut workspace.scratch, &mut out);
        Ok(out)
    }
}

/// The masks of all columns in one block and prime.
struct MaskIds<'a> {
    ring_batch: &'a RingBatch,
    prime: usize,
    block: usize,
}

impl MaskIds<'_> {
    fn expand(&self, modulus: u64, words: &mut [u64]) {
        let (prime, block) = (self.prime, self.block);
        let narrow = |number: usize| u16::try_from(number).expect("at most 8 primes, 64 blocks");
        let (prime, block) = (narrow(prime), narrow(block));
        for (column, words) in (0..).zip(words.chunks_exact_mut(BLOCK_POINTS)) {
            self.ring_batch.masks.expand(MaskId { column, prime, block }, modulus, words);
        }
    }
}
