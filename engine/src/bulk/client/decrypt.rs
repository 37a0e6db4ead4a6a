//! Replies to rows.

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{BulkClient, BulkClientError, ReplyShape};
use crate::bulk::layout::{component_words, output_len, reply_len, ring_batch_rows};
use crate::bulk::lift::{Lift, centred};
use crate::bulk::parameters::Packing;
use crate::rlwe::words::{packed_len, unpack};

impl BulkClient {
    /// The rows of each output, centred modulo t.
    pub fn decrypt(
        &self,
        reply: &[u8],
        shape: ReplyShape,
    ) -> Result<Vec<Vec<i64>>, BulkClientError> {
        let ReplyShape { rows, outputs, degree, primes } = shape;
        let parameters = self.parameters();
        let is_shape = match parameters.packing {
            Packing::Slots => (1..=parameters.primes).contains(&primes),
            Packing::Coefficients => primes == parameters.primes && degree == 1,
        };
        if !is_shape {
            return Err(BulkClientError::Shape { primes, degree });
        }
        let too_large = BulkClientError::TooLarge { rows, columns: outputs };
        let expected = reply_len(parameters, rows, outputs, degree, primes).ok_or(too_large)?;
        if reply.len() != expected {
            return Err(BulkClientError::Length { found: reply.len(), expected });
        }
        let lift = Lift::new(parameters, primes as usize);
        let mut rest = reply;
        let mut pieces = Vec::new();
        for rows in ring_batch_rows(parameters, rows) {
            let len = output_len(parameters, rows, degree, primes).expect("the reply has more");
            for _ in 0..outputs {
                let (piece, others) = rest.split_at(len);
                pieces.push((rows, piece));
                rest = others;
            }
        }
        let decrypted = pieces
            .into_par_iter()
            .map(|(rows, piece)| self.decrypt_output(piece, ReplyShape { rows, ..shape }, &lift));
        let decrypted: Vec<_> = decrypted.collect::<Result<_, _>>()?;
        let mut outputs = vec![Vec::with_capacity(rows); outputs];
        for ring_batch in decrypted.chunks(outputs.len().max(1)) {
            outputs.iter_mut().zip(ring_batch).for_each(|(output, rows)| output.extend(rows));
        }
        Ok(outputs)
    }

    /// An output of one ring batch.
    fn decrypt_output(
        &self,
        piece: &[u8],
        shape: ReplyShape,
        lift: &Lift,
    ) -> Result<Vec<i64>, BulkClientError> {
        let phases = self.phases(piece, shape)?;
        let coefficients = self.ring.dimension();
        let mut words: Vec<_> =
            (0..coefficients).map(|at| lift.lift(phases.iter().map(|phase| phase[at]))).collect();
        self.ring.decode(&mut words);
        let t = self.parameters().plaintext_modulus;
        Ok(words[..shape.rows].iter().map(|&word| centred(word, t)).collect())
    }

    /// `sum of c_i s^i` in coefficients, prime by prime: innermost first, `c_0 + s (c_1 + s (..))`.
    /// Wiped when dropped, as with the reply it tells the secret.
    pub(in crate::bulk) fn phases(
        &self,
        piece: &[u8],
        shape: ReplyShape,
    ) -> Result<Vec<Zeroizing<Vec<u64>>>, BulkClientError> {
        let parameters = self.parameters();
        let primes = shape.primes as usize;
        let first = packed_len(component_words(parameters, shape.rows, 0));
        let other = packed_len(parameters.dimension());
        let slots = parameters.packing == Packing::Slots;
        let ring_primes = self.ring.primes().iter().zip(&self.secret).take(primes);
        let phases = ring_primes.enumerate().map(|(index, (prime, secret))| {
            let mut phase = Zeroizing::new(vec![0; parameters.dimension()]);
            for component in (0..=shape.degree as usize).rev() {
                let words = component_words(parameters, shape.rows, component);
                let start = match component {
                    0 => index * first,
                    _ => primes * first + ((component - 1) * primes + index) * other,
                };
                let packed = &piece[start..start + packed_len(words)];
                let mut sum = Zeroizing::new(vec![0; parameters.dimension()]);
                unpack(packed, prime.modulus(), &mut sum[..words])?;
                if slots {
                    prime.multiply_add(&mut sum, &phase, secret);
                } else if component == 0 {
                    let mut product = Zeroizing::new(vec![0; parameters.dimension()]);
                    prime.multiply_add(&mut product, &phase, secret);
                    prime.inverse(&mut product);
                    prime.add(&mut sum, &product);
                } else {
                    prime.forward(&mut sum);
                    prime.multiply_add(&mut sum, &phase, secret);
                }
                phase = sum;
            }
            if slots {
                prime.inverse(&mut phase);
            }
            Ok(phase)
        });
        phases.collect()
    }
}
