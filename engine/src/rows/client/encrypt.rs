//! Rows to uploads.
//!
//! The phase of column j's coefficient is `t^-1 m + e`, with t^-1 modulo q and
//! `m = b_j 2^-tau mod t`: the rounds of trace and expansion double it tau times. From each body the
//! centred residue modulo the last prime is subtracted, which makes that residue 0, so that it need
//! not be sent; it is noise like any other. Other coefficients are not sent.

use zeroize::Zeroizing;

use super::{ReplyCounts, RowClient, RowClientError, RowUpload, UploadDigest};
use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::sampling::{Noise, entropy};
use crate::rows::upload::{
    SeedSource, UploadHeader, row_masks, upload_digest, upload_len, write_row,
};

/// Randomness of a row.
pub(in crate::rows) struct RowSeeds {
    pub(in crate::rows) mask: [u8; SEED_BYTES],
    pub(in crate::rows) noise: Noise,
}

impl RowClient {
    /// The upload of some rows, each of the bits of all columns; `counts` is that of the key, which
    /// must be good for as many more.
    pub fn encrypt(
        &self,
        rows: &[impl AsRef<[bool]>],
        counts: &ReplyCounts,
    ) -> Result<RowUpload, RowClientError> {
        counts.require_usable(rows.len())?;
        let seeds = || Ok(RowSeeds { mask: *entropy()?, noise: Noise::fresh()? });
        self.encrypt_with(SeedSource::Fresh, rows, seeds)
    }

    /// The upload of one row with the seed of a ticket, which is used up.
    #[cfg(any(test, feature = "prepared-rows"))]
    pub fn encrypt_ahead(
        &self,
        ticket: super::RowTicket,
        row: &[bool],
        counts: &ReplyCounts,
    ) -> Result<RowUpload, RowClientError> {
        counts.require_usable(1)?;
        let seeds = || Ok(RowSeeds { mask: ticket.seed(), noise: Noise::fresh()? });
        self.encrypt_with(SeedSource::Ahead, &[row], seeds)
    }

    pub(in crate::rows) fn encrypt_with(
        &self,
        source: SeedSource,
        rows: &[impl AsRef<[bool]>],
        mut seeds: impl FnMut() -> Result<RowSeeds, RowClientError>,
    ) -> Result<RowUpload, RowClientError> {
        let too_many = RowClientError::Rows(rows.len());
        let count = u32::try_from(rows.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or(too_many.clone())?;
        let (owner, model, key) = (self.owner, self.model, self.key);
        let header = UploadHeader { seeds: source, rows: count, owner, model, key };
        let mut bytes = header.to_bytes().to_vec();
        bytes.reserve(upload_len(&self.parameters, count).ok_or(too_many)? - bytes.len());
        for (row, bits) in rows.iter().enumerate() {
            let (bits, expected) = (bits.as_ref(), self.layout.columns());
            if bits.len() != expected {
                return Err(RowClientError::Columns { row, found: bits.len(), expected });
            }
            let seeds = seeds()?;
            let bodies = self.bodies(bits, &seeds);
            write_row(&seeds.mask, &bodies, expected, &mut bytes);
        }
        let (_, rows) = bytes.split_at(header.to_bytes().len());
        let digest = UploadDigest(upload_digest(&header.to_bytes(), rows));
        Ok(RowUpload { bytes, digest })
    }

    /// Bodies of all columns, modulo each prime but the last.
    fn bodies(&self, bits: &[bool], seeds: &RowSeeds) -> Vec<u64> {
        let columns = bits.len();
        let mut bodies = Zeroizing::new(vec![0; self.ring.primes().len() * columns]);
        let mut errors = Zeroizing::new(vec![0; columns]);
        seeds.noise.stream(0).add_errors(&mut errors);
        let masks = row_masks(&self.ring, &seeds.mask);
        let mut mask = vec![0; self.ring.dimension()];
        let mut product = Zeroizing::new(vec![0; self.ring.dimension()]);
        let message = self.bit_message();
        let t = self.parameters.plaintext_modulus();
        let primes = self.ring.primes().iter().zip(&self.secret).zip(bodies.chunks_mut(columns));
        for (index, ((prime, secret), bodies)) in (0..).zip(primes) {
            let field = &prime.montgomery;
            masks.expand_all(0, index, prime.modulus(), &mut mask);
            product.fill(0);
            prime.multiply_add(&mut product, &mask, secret);
            prime.inverse(&mut product);
            let message = field.multiply(field.residue(message), field.inverse(t));
            for (column, (body, (&bit, &error))) in
                bodies.iter_mut().zip(bits.iter().zip(errors.iter())).enumerate()
            {
                // The message or 0, without a branch.
                let message = message & u64::from(bit).wrapping_neg();
                let phase = field.add(message, field.residue(error));
                *body = field.subtract(phase, product[self.layout.coefficient(column)]);
            }
        }
        self.drop_last_residues(&mut bodies, columns);
        bodies[..(self.ring.primes().len() - 1) * columns].to_vec()
    }

    /// `2^-tau mod t`, centred.
    fn bit_message(&self) -> i64 {
        let t = self.parameters.plaintext_modulus();
        let halve =
            |number: u64| if number.is_multiple_of(2) { number / 2 } else { (number + t) / 2 };
        let message = (0..self.parameters.keys.rounds()).fold(1, |number, _| halve(number));
        let message = message.cast_signed();
        if message > t.cast_signed() / 2 { message - t.cast_signed() } else { message }
    }

    /// Subtracts from each body the centred integer that it is modulo the last prime.
    fn drop_last_residues(&self, bodies: &mut [u64], columns: usize) {
        let (kept, last) = bodies.split_at_mut(bodies.len() - columns);
        let Some(last_prime) = self.ring.primes().last() else { return };
        let half = last_prime.modulus() / 2;
        for (prime, bodies) in self.ring.primes().iter().zip(kept.chunks_mut(columns)) {
            let field = &prime.montgomery;
            for (body, &word) in bodies.iter_mut().zip(last.iter()) {
                // Shifted by half the prime, reduced, and back.
                let shifted = last_prime.montgomery.add(word, half);
                let centred = shifted.cast_signed() - half.cast_signed();
                *body = field.subtract(*body, field.residue(centred));
            }
        }
    }
}
