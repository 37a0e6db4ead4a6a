//! The parts of an evaluation, each alone, with the shapes that the whole has.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cipherscore_engine::bulk::flood::Flood;
use cipherscore_engine::bulk::kernel::Kernel;
use cipherscore_engine::bulk::layout::component_words;
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::sanitise::Sanitiser;
use cipherscore_engine::bulk::secret::PublicKey;
use cipherscore_engine::bulk::switch::Switch;
use cipherscore_engine::bulk::tape::{Columns, Tape, TapeScratch};
use cipherscore_engine::rlwe::mask::{MaskId, Masks, SEED_BYTES};
use cipherscore_engine::rlwe::primes::BLOCK_POINTS;
use cipherscore_engine::rlwe::words::{pack, packed_len, unpack};

use super::rows_per_second;
use super::subjects::Subject;

pub(super) const PARTS: [&str; 5] =
    ["masks", "unpacking", "kernel", "sanitising", "switching and packing"];

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// One ring batch, and what its evaluation needs.
pub(super) struct Split {
    ring: Arc<Ring>,
    tape: Tape,
    switch: Switch,
    sanitiser: Option<Sanitiser>,
    masks: Masks,
    columns: usize,
    outputs: usize,
    /// The upload of the ring batch, without its seed.
    bodies: Vec<u8>,
    /// Bodies and masks of a block.
    words: [Aligned; 2],
    /// Components of all outputs, of all points and primes.
    sums: Vec<u64>,
}

impl Split {
    pub(super) fn new(subject: &Subject, upload: &[u8]) -> anyhow::Result<Self> {
        let (specs, program) = (&subject.server.specs, &subject.server.program);
        let ring = Ring::new(specs.parameters)?;
        let tape = Tape::new(program)?;
        let columns = specs.columns as usize;
        let (seed, bodies) = upload.split_first_chunk::<SEED_BYTES>().context("no seed")?;
        let primes = specs.parameters.primes as usize;
        let bodies = bodies[..primes * columns * packed_len(ring.dimension())].to_vec();
        let sanitiser = match &subject.keys.evaluation {
            Some(key) if specs.hidden => {
                let key = Arc::new(PublicKey::read(key, &specs.parameters)?);
                let t = specs.parameters.plaintext_modulus;
                let flood = Flood::hiding(specs.log2_sigma_phase, t);
                Some(Sanitiser::new(Arc::clone(&ring), key, specs.degree, flood))
            }
            _ => None,
        };
        let outputs = specs.outputs as usize;
        Ok(Self {
            switch: Switch::new(Arc::clone(&ring), specs.reply_primes),
            masks: Masks::new(seed),
            sums: vec![1; outputs * tape.components() * primes * ring.dimension()],
            words: [Aligned::new(columns), Aligned::new(columns)],
            ring,
            tape,
            sanitiser,
            columns,
            outputs,
            bodies,
        })
    }

    /// Nanoseconds a row of each of [`PARTS`].
    pub(super) fn measure(&mut self, least: Duration) -> anyhow::Result<[f64; PARTS.len()]> {
        let rows = self.ring.dimension();
        Ok([
            ns_per_row(rows, least, || self.masks())?,
            ns_per_row(rows, least, || self.unpacking())?,
            ns_per_row(rows, least, || self.kernel())?,
            match self.sanitiser.is_some() {
                true => ns_per_row(rows, least, || self.sanitising())?,
                false => 0.0,
            },
            ns_per_row(rows, least, || self.packing())?,
        ])
    }

    fn blocks(&self) -> usize {
        self.ring.dimension() / BLOCK_POINTS
    }

    fn masks(&mut self) -> anyhow::Result<()> {
        for block in 0..u16::try_from(self.blocks())? {
            for (prime, ring) in (0..).zip(self.ring.primes()) {
                let words = self.words[1].get().chunks_exact_mut(BLOCK_POINTS);
                for (column, words) in (0..).zip(words) {
                    self.masks.expand(MaskId { column, prime, block }, ring.modulus(), words);
                }
                black_box(self.words[1].get());
            }
        }
        Ok(())
    }

    fn unpacking(&mut self) -> anyhow::Result<()> {
        let packed = packed_len(BLOCK_POINTS);
        let blocks = self.bodies.chunks_exact(packed * self.columns);
        for (bodies, prime) in blocks.zip(self.ring.primes().iter().cycle()) {
            let words = self.words[0].get().chunks_exact_mut(BLOCK_POINTS);
            for (words, packed) in words.zip(bodies.chunks_exact(packed)) {
                unpack(packed, prime.modulus(), words)?;
            }
            black_box(self.words[0].get());
        }
        Ok(())
    }

    /// On words that the parts before have left: what they are makes no difference.
    fn kernel(&mut self) -> anyhow::Result<()> {
        let mut out = vec![0; self.outputs * self.tape.components() * BLOCK_POINTS];
        let mut scratch = TapeScratch::default();
        let [bodies, masks] = &mut self.words;
        let columns = Columns { bodies: bodies.get(), masks: masks.get() };
        for _ in 0..self.ring.dimension() / BLOCK_POINTS {
            // All words are below the largest of the primes, which is the first.
            for _ in self.ring.primes() {
                self.tape.evaluate(Kernel::best(), 0, columns, &mut scratch, &mut out);
                black_box(&mut out);
            }
        }
        Ok(())
    }

    fn sanitising(&mut self) -> anyhow::Result<()> {
        let Some(sanitiser) = &self.sanitiser else { return Ok(()) };
        let additions = sanitiser.prepare(u32::try_from(self.outputs)?)?;
        let words = self.sums.len() / self.outputs;
        for (output, addition) in self.sums.chunks_exact_mut(words).zip(additions) {
            addition.add(&self.ring, output);
        }
        Ok(())
    }

    fn packing(&mut self) -> anyhow::Result<()> {
        let (dimension, primes) = (self.ring.dimension(), self.ring.primes().len());
        let mut reply = Vec::new();
        for (index, component) in self.sums.chunks_exact_mut(primes * dimension).enumerate() {
            if self.switch.kept() < primes {
                self.switch.apply(component);
            }
            let index = index % self.tape.components();
            let words = component_words(self.ring.parameters(), dimension, index);
            for words_of_all in component.chunks(dimension).take(self.switch.kept()) {
                let start = reply.len();
                reply.resize(start + packed_len(words), 0);
                pack(&words_of_all[..words], &mut reply[start..]);
            }
        }
        black_box(reply);
        Ok(())
    }
}

/// Nanoseconds a row.
fn ns_per_row(
    rows: usize,
    least: Duration,
    mut step: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    Ok(1e9 / rows_per_second(rows, least, &mut step)?)
}

/// Words of all columns in a block, from a cache line on, as the evaluator has them.
struct Aligned {
    words: Vec<u64>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(columns: usize) -> Self {
        let length = columns * BLOCK_POINTS;
        let words = vec![0; length + LINE_WORDS];
        let start = words.as_ptr().align_offset(LINE_WORDS * size_of::<u64>()).min(LINE_WORDS);
        Self { words, start, length }
    }

    fn get(&mut self) -> &mut [u64] {
        &mut self.words[self.start..][..self.length]
    }
}
