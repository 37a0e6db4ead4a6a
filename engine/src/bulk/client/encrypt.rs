//! Rows to uploads.

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{BulkClient, BulkClientError};
use crate::bulk::layout::{block_words, ring_batch_len, ring_batch_rows, upload_len};
use crate::bulk::parameters::Packing;
use crate::evaluator::Stop;
use crate::rlwe::keystream::KEY_BYTES;
use crate::rlwe::mask::{Masks, SEED_BYTES};
use crate::rlwe::primes::BLOCK_POINTS;
use crate::rlwe::sampling::{EntropyError, Noise, entropy};
use crate::rlwe::words::{pack, packed_len};

/// Seeds of a ring batch.
pub(in crate::bulk) struct Seeds {
    pub(in crate::bulk) mask: [u8; SEED_BYTES],
    pub(in crate::bulk) noise: Zeroizing<[u8; KEY_BYTES]>,
}

impl Seeds {
    fn fresh() -> Result<Self, EntropyError> {
        Ok(Self { mask: *entropy()?, noise: entropy()? })
    }
}

/// A ring batch while it is encrypted.
struct RingBatch {
    first_row: usize,
    rows: usize,
    masks: Masks,
    noise: Noise,
}

/// Buffers of a thread that encrypts.
struct Scratch {
    /// m + t e.
    phase: Zeroizing<Vec<i64>>,
    /// e.
    errors: Zeroizing<Vec<i64>>,
    words: Zeroizing<Vec<u64>>,
    mask: Vec<u64>,
    body: Vec<u64>,
}

impl Scratch {
    fn new(dimension: usize) -> Self {
        Self {
            phase: Zeroizing::new(vec![0; dimension]),
            errors: Zeroizing::new(vec![0; dimension]),
            words: Zeroizing::new(vec![0; dimension]),
            mask: vec![0; dimension],
            body: vec![0; dimension],
        }
    }
}

impl BulkClient {
    /// The upload of `rows` rows. `fill(column, row, values)` gives the integers of a column for as
    /// many rows as there are `values`, from row `row` on; they must be from -t/2 to (t-1)/2.
    pub fn encrypt(
        &self,
        rows: usize,
        columns: u32,
        fill: impl Fn(u32, usize, &mut [i64]) + Sync,
    ) -> Result<Vec<u8>, BulkClientError> {
        self.encrypt_with(rows, columns, fill, Seeds::fresh, &|| false)
    }

    /// As [`BulkClient::encrypt`], unless `stop` says so, which it asks before each column.
    pub fn encrypt_unless(
        &self,
        rows: usize,
        columns: u32,
        fill: impl Fn(u32, usize, &mut [i64]) + Sync,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, BulkClientError> {
        self.encrypt_with(rows, columns, fill, Seeds::fresh, stop)
    }

    pub(in crate::bulk) fn encrypt_with(
        &self,
        rows: usize,
        columns: u32,
        fill: impl Fn(u32, usize, &mut [i64]) + Sync,
        mut seeds: impl FnMut() -> Result<Seeds, EntropyError>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, BulkClientError> {
        let too_large = || BulkClientError::TooLarge { rows, columns: columns as usize };
        let mut upload =
            vec![0; upload_len(self.parameters(), rows, columns).ok_or_else(too_large)?];
        let mut rest = upload.as_mut_slice();
        let mut first_row = 0;
        for rows in ring_batch_rows(self.parameters(), rows) {
            let seeds = seeds()?;
            let len = ring_batch_len(self.parameters(), rows, columns).ok_or_else(too_large)?;
            let (seed, bodies) = split_off(&mut rest, len).split_at_mut(SEED_BYTES);
            seed.copy_from_slice(&seeds.mask);
            let masks = Masks::new(&seeds.mask);
            let ring_batch =
                RingBatch { first_row, rows, masks, noise: Noise::from_key(&seeds.noise) };
            let columns = (0..columns).into_par_iter().zip(self.columns(rows, columns, bodies));
            let scratch = || Scratch::new(self.ring.dimension());
            columns.try_for_each_init(scratch, |scratch, (column, blocks)| {
                if stop() {
                    return Err(BulkClientError::Stopped);
                }
                self.encrypt_column(&ring_batch, column, &fill, blocks, scratch)
            })?;
            first_row += rows;
        }
        Ok(upload)
    }

    /// For each column its places in `bodies`: blocks, each prime by prime.
    fn columns<'a>(
        &self,
        rows: usize,
        columns: u32,
        mut bodies: &'a mut [u8],
    ) -> Vec<Vec<&'a mut [u8]>> {
        let mut places: Vec<_> = (0..columns).map(|_| Vec::new()).collect();
        for words in block_words(self.parameters(), rows) {
            for _ in self.ring.primes() {
                for places in &mut places {
                    places.push(split_off(&mut bodies, packed_len(words)));
                }
            }
        }
        places
    }

    fn encrypt_column(
        &self,
        ring_batch: &RingBatch,
        column: u32,
        fill: &impl Fn(u32, usize, &mut [i64]),
        mut places: Vec<&mut [u8]>,
        scratch: &mut Scratch,
    ) -> Result<(), BulkClientError> {
        self.phase(ring_batch, column, fill, scratch)?;
        let Scratch { phase, words, mask, body, .. } = scratch;
        let primes = self.ring.primes();
        for (index, (prime, negative_secret)) in
            primes.iter().zip(&self.negative_secret).enumerate()
        {
            prime.residues(phase, words);
            let prime_index = u16::try_from(index).expect("there are at most 8 primes");
            ring_batch.masks.expand_all(column, prime_index, prime.modulus(), mask);
            body.fill(0);
            // Masks, and so bodies, are in Montgomery form.
            match self.parameters().packing {
                Packing::Slots => {
                    prime.forward(words);
                    prime.add_in_montgomery_form(body, words);
                    prime.multiply_add(body, mask, negative_secret);
                }
                Packing::Coefficients => {
                    prime.forward(mask);
                    prime.multiply_add(body, mask, negative_secret);
                    prime.inverse(body);
                    prime.add_in_montgomery_form(body, words);
                }
            }
            let places = places.iter_mut().skip(index).step_by(primes.len());
            let blocks = block_words(self.parameters(), ring_batch.rows);
            for ((place, words), block) in places.zip(blocks).zip(body.chunks(BLOCK_POINTS)) {
                pack(&block[..words], place);
            }
        }
        Ok(())
    }

    /// `m + t e`, coefficient by coefficient, m centred.
    fn phase(
        &self,
        ring_batch: &RingBatch,
        column: u32,
        fill: &impl Fn(u32, usize, &mut [i64]),
        scratch: &mut Scratch,
    ) -> Result<(), BulkClientError> {
        let Scratch { phase, errors, words, .. } = scratch;
        let t = self.parameters().plaintext_modulus.cast_signed();
        let (least, most) = (-(t / 2), (t - 1) / 2);
        phase.fill(0);
        let rows = &mut phase[..ring_batch.rows];
        fill(column, ring_batch.first_row, rows);
        if rows.iter().fold(false, |wrong, row| wrong | (*row < least) | (*row > most)) {
            let wrong = rows.iter().position(|row| !(least..=most).contains(row));
            let row = ring_batch.first_row + wrong.expect("one of them is out of range");
            return Err(BulkClientError::Range { row, column });
        }
        if self.parameters().packing == Packing::Slots {
            // Slots without rows are answered as well: with what no row has, they would say more
            // of a hidden model than rows do.
            let last = rows.last().copied().unwrap_or(0);
            phase[ring_batch.rows..].fill(last);
            for (word, row) in words.iter_mut().zip(phase.iter()) {
                // t where the row is negative.
                *word = (row + (t & (row >> 63))).cast_unsigned();
            }
            self.ring.encode(words);
            for (coefficient, word) in phase.iter_mut().zip(words.iter()) {
                let word = word.cast_signed();
                *coefficient = word - (t & ((most - word) >> 63));
            }
        }
        errors.fill(0);
        ring_batch.noise.stream(column).add_errors(errors);
        for (coefficient, error) in phase.iter_mut().zip(errors.iter()) {
            *coefficient += t * error;
        }
        Ok(())
    }
}

/// Takes the first `len` bytes off `rest`.
fn split_off<'a>(rest: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}
