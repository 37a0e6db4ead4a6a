//! Replies to sums of leaves.
//!
//! With mask words a and body words b, the phase `b + sum of a s` modulo 2^w is, but for rounding and
//! flood, 2^w times the fraction of q that `t^-1 m` is. As `t^-1 = (1 - q (q^-1 mod t)) / t mod q`, that
//! is a multiple of 1/t: rounded to it, and multiplied by -q modulo t, it is m.

use zeroize::Zeroizing;

use super::{ReplyCounts, RowClient, RowClientError, UploadDigest};
use crate::rlwe::montgomery::{Montgomery, low};
use crate::rows::bits::read_bits;
use crate::rows::canary::canaries;
use crate::rows::domain::{DIGEST_BYTES, Domain};
use crate::rows::reply::{
    REPLY_HEADER_BYTES, ReplyHeader, reply_row_len, reply_row_words, row_reply_len,
};

/// Bits below which a sum of N words of either sign is a residue of one prime, with its sign.
const ONE_PRIME_BITS: u32 = 50;

impl RowClient {
    /// For each row and raw output the sum of the leaves that the row reaches and the offset, from 0
    /// to t2 - 1.
    ///
    /// `counts` is that of the key, and is to be kept whatever the result is. What is damaged, or
    /// answers something else, does not count: anybody on the way could burn keys with it.
    pub fn decrypt(
        &self,
        upload: UploadDigest,
        rows: u32,
        reply: &[u8],
        counts: &mut ReplyCounts,
    ) -> Result<Vec<Vec<u64>>, RowClientError> {
        // First what anybody can see: bytes that are no reply say nothing of the key, whatever it has
        // been through.
        let words = self.read(upload, rows, reply)?;
        counts.require_usable(rows as usize)?;
        let header = reply.first_chunk::<REPLY_HEADER_BYTES>().ok_or(RowClientError::Format)?;
        let execution = ReplyHeader::execution(header);
        let t = self.parameters.plaintext_modulus();
        let mut good = true;
        let mut sums = Vec::with_capacity(words.len());
        for (row, words) in (0..).zip(&words) {
            let messages = self.messages(words);
            let expected = canaries(execution, row, t);
            let (outputs, found) = messages.split_at(messages.len() - expected.len());
            let differences = found.iter().zip(expected).map(|(found, expected)| found ^ expected);
            good &= differences.fold(0, |all, difference| all | difference) == 0;
            let row_sums = self.sums(outputs);
            good &= row_sums.is_some();
            sums.push(row_sums.unwrap_or_default());
        }
        if good {
            counts.answered_rows = counts.answered_rows.saturating_add(rows.into());
            return Ok(sums);
        }
        counts.bad += 1;
        Err(RowClientError::Bad { bad: counts.bad })
    }

    /// The words of each row, of a reply that is whole and answers this upload. Nothing here depends
    /// on the secret.
    fn read(
        &self,
        upload: UploadDigest,
        rows: u32,
        reply: &[u8],
    ) -> Result<Vec<Vec<u64>>, RowClientError> {
        let format = RowClientError::Format;
        let Some((header, rest)) = reply.split_first_chunk::<REPLY_HEADER_BYTES>() else {
            return Err(format);
        };
        let word_bits = self.parameters.word_bits;
        let execution = ReplyHeader::execution(header);
        let expected = ReplyHeader { word_bits, rows, execution, upload: upload.0 }.to_bytes();
        let length = row_reply_len(&self.parameters, rows);
        if header[..16] != expected[..16] || length != Some(reply.len()) {
            return Err(format);
        }
        let (before, digest) = reply.split_at(reply.len() - DIGEST_BYTES);
        if digest != Domain::Reply.digest(&[before]) {
            return Err(RowClientError::Damaged);
        }
        if *header != expected {
            return Err(RowClientError::OtherUpload);
        }
        let count = reply_row_words(&self.parameters);
        let packed = rest[..rest.len() - DIGEST_BYTES].chunks(reply_row_len(&self.parameters));
        let words = packed.map(|packed| read_bits(packed, count, word_bits).ok_or(format.clone()));
        words.collect()
    }

    /// Messages of all outputs of a row, from 0 to t - 1. How long it takes does not depend on them.
    pub(in crate::rows) fn messages(&self, words: &[u64]) -> Zeroizing<Vec<u64>> {
        let (t, word_bits) = (self.parameters.plaintext_modulus(), self.parameters.word_bits);
        let field = Montgomery::new(t);
        let moduli = self.parameters.keys.moduli().iter();
        let q = moduli.fold(1, |q, &p| field.multiply(q, p % t));
        let factor = field.montgomery_form(field.negate(q));
        let phases = self.phases(words);
        let mut messages = Zeroizing::new(Vec::with_capacity(phases.len()));
        messages.extend(phases.iter().map(|&phase| {
            let scaled = u128::from(phase) * u128::from(t);
            // At most t.
            let rounded = low((scaled + (1 << (word_bits - 1))) >> word_bits);
            field.product(field.add(rounded, 0), factor)
        }));
        messages
    }

    /// Phases of all outputs of a row, modulo 2^w.
    pub(in crate::rows) fn phases(&self, words: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut phases = Zeroizing::new(Vec::with_capacity(self.layout.outputs()));
        let mask = (1 << self.parameters.word_bits) - 1;
        let mut rest = words;
        for ciphertext in 0..self.layout.reply_ciphertexts() {
            let (masks, others) = rest.split_at(self.ring.dimension());
            let (bodies, others) = others.split_at(self.layout.outputs_of(ciphertext).len());
            rest = others;
            let products = self.products(masks);
            let sums = bodies.iter().zip(products.iter());
            phases.extend(sums.map(|(&body, &product)| body.wrapping_add(product) & mask));
        }
        phases
    }

    /// Coefficients of the product of words and the secret, modulo 2^64. As an integer each is below
    /// `N 2^w`, so that its residues modulo one prime, or two, tell it.
    fn products(&self, words: &[u64]) -> Zeroizing<Vec<u64>> {
        let bits = self.parameters.word_bits + self.ring.dimension().ilog2();
        let used = if bits < ONE_PRIME_BITS { 1 } else { 2 };
        let residues =
            self.ring.primes()[..used].iter().zip(&self.secret).map(|(prime, secret)| {
                let modulus = prime.modulus();
                let mut transform: Vec<_> = words.iter().map(|word| word % modulus).collect();
                prime.forward(&mut transform);
                let mut product = Zeroizing::new(vec![0; words.len()]);
                prime.multiply_add(&mut product, &transform, secret);
                prime.inverse(&mut product);
                product
            });
        let mut residues: Vec<_> = residues.collect();
        let mut products = residues.swap_remove(0);
        let [first, second] = [0, used - 1].map(|index| &self.ring.primes()[index].montgomery);
        let (p, other) = (first.modulus(), second.modulus());
        let Some(seconds) = residues.first() else {
            // Of either sign.
            let half = p / 2;
            products.iter_mut().for_each(|word| {
                *word = first.add(*word, half).wrapping_sub(half);
            });
            return products;
        };
        let inverse = second.montgomery_form(second.inverse(p % other));
        for (word, &residue) in products.iter_mut().zip(seconds.iter()) {
            // The integer is word + p digit, or that less both primes' product.
            let reduced = second.add(*word, 0);
            let digit = second.product(second.subtract(residue, reduced), inverse);
            let half = other / 2;
            let centred = second.add(digit, half).wrapping_sub(half);
            *word = word.wrapping_add(p.wrapping_mul(centred));
        }
        products
    }

    /// The sum of each region, or nothing unless each has exactly as many reached leaves as trees.
    ///
    /// A message is more than a residue of either modulus, but below 2^52, and so has a Montgomery form.
    fn sums(&self, outputs: &[u64]) -> Option<Vec<u64>> {
        let tags = Montgomery::new(self.parameters.tag_modulus.into());
        let values = Montgomery::new(self.parameters.value_modulus);
        let mut rest = outputs;
        let mut all = true;
        let mut sums = Vec::with_capacity(self.parameters.regions.len());
        for region in &self.parameters.regions {
            let (own, others) = rest.split_at(region.outputs as usize);
            rest = others;
            let (mut reached, mut sum) = (0, 0);
            for &message in own {
                let is_reached = u64::from(tags.montgomery_form(message) == 0);
                let value = values.plain_form(values.montgomery_form(message));
                reached += is_reached;
                // The value or 0, without a branch.
                sum = values.add(sum, value & is_reached.wrapping_neg());
            }
            all &= reached == u64::from(region.trees);
            sums.push(sum);
        }
        all.then_some(sums)
    }
}
