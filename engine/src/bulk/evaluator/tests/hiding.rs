//! Why replies are hidden: what a data owner reads off a reply that is not, and no more off one
//! that is.

use std::sync::Arc;

use super::Party;
use crate::bulk::evaluator::*;
use crate::bulk::program::{Node, Output, Product, Program};
use crate::bulk::ring::Ring;
use crate::bulk::tests::samples::{affine, column};
use crate::bulk::tests::{Ciphertext, read_upload};
use crate::rlwe::words::{packed_len, unpack};

const PARAMETERS: Parameters = Parameters {
    packing: Packing::Slots,
    ring_dimension: 8192,
    primes: 3,
    plaintext_modulus: 65537,
};
const DEGREE: u32 = 2;
/// Monomials of a tree in columns 0 to 2, whose root is column 0.
const MONOMIALS: [&[usize]; 4] = [&[0], &[2], &[0, 1], &[0, 2]];
/// Bins of a histogram of residues.
const BINS: usize = 64;

/// `if b0 { if b1 { l0 } else { l1 } } else { if b2 { l2 } else { l3 } }`.
fn tree(leaves: [i64; 4]) -> Program {
    let [l0, l1, l2, l3] = leaves;
    let nodes = vec![
        Node::Affine(affine(l1, &[(1, l0 - l1)])),
        Node::Affine(affine(l3, &[(2, l2 - l3)])),
        Node::Select {
            base: Some(1),
            products: vec![Product { indicator: column(0), factor: 0, minus: Some(1) }],
        },
    ];
    Program { columns: 3, nodes, outputs: vec![Output { constant: 0, roots: vec![2] }] }
}

/// What a data owner has: its upload, and a reply to it.
struct View {
    ring: Arc<Ring>,
    columns: Vec<Ciphertext>,
    reply: Ciphertext,
}

impl View {
    fn of(party: &Party, upload: &[u8]) -> Self {
        let ring = Ring::new(PARAMETERS).unwrap();
        let columns = read_upload(&ring, upload, 1, 3).swap_remove(0);
        let reply = party.evaluate(1, [upload]).unwrap();
        let components = reply.chunks(ring.primes().len() * packed_len(ring.dimension()));
        let words = components.map(|component| {
            let packed = component.chunks(packed_len(ring.dimension())).zip(ring.primes());
            let words = packed.map(|(packed, prime)| {
                let mut words = vec![0; ring.dimension()];
                unpack(packed, prime.modulus(), &mut words).unwrap();
                words
            });
            words.collect()
        });
        let reply = Ciphertext(words.collect());
        assert_eq!(reply.0.len(), DEGREE as usize + 1);
        Self { ring, columns, reply }
    }

    /// What component `component` of a product of columns is at a point, modulo the first prime.
    fn known(&self, monomial: &[usize], component: usize, point: usize) -> u64 {
        let field = &self.ring.primes()[0].montgomery;
        let word = |column: usize, component: usize| self.columns[column].0[component][0][point];
        match *monomial {
            [only] => word(only, component),
            [left, right] => (0..=component).fold(0, |sum, i| {
                let of = |column, i| if i < 2 { word(column, i) } else { 0 };
                field.add(sum, field.multiply(of(left, i), of(right, component - i)))
            }),
            _ => panic!("a tree of depth 2"),
        }
    }

    /// Solves c_1 at the first points for the coefficients of the monomials, and says at how many
    /// of all points c_1 is what they say.
    fn solve(&self) -> ([i64; 4], usize) {
        let field = &self.ring.primes()[0].montgomery;
        let line = |point| {
            let known = MONOMIALS.map(|monomial| self.known(monomial, 1, point));
            (known, self.reply.0[1][0][point])
        };
        let mut system: Vec<_> = (0..MONOMIALS.len()).map(line).collect();
        for pivot in 0..system.len() {
            let (mut known, mut word) = system[pivot];
            let inverse = field.inverse(known[pivot]);
            known = known.map(|known| field.multiply(known, inverse));
            word = field.multiply(word, inverse);
            system[pivot] = (known, word);
            for (_, other) in system.iter_mut().enumerate().filter(|(at, _)| *at != pivot) {
                let factor = other.0[pivot];
                for (left, right) in other.0.iter_mut().zip(known) {
                    *left = field.subtract(*left, field.multiply(factor, right));
                }
                other.1 = field.subtract(other.1, field.multiply(factor, word));
            }
        }
        let solution: Vec<u64> = system.iter().map(|(_, word)| *word).collect();
        let explained = (0..self.ring.dimension()).filter(|&point| {
            let (known, word) = line(point);
            let terms = known.iter().zip(&solution);
            word == terms.fold(0, |sum, (&a, &b)| field.add(sum, field.multiply(a, b)))
        });
        let explained = explained.count();
        let centred = |word: u64| {
            let (word, modulus) = (word.cast_signed(), field.modulus().cast_signed());
            if word > modulus / 2 { word - modulus } else { word }
        };
        (std::array::from_fn(|at| centred(solution[at])), explained)
    }

    /// The leaves that an answer and the coefficients say.
    fn leaves(&self, coefficients: [i64; 4]) -> [i64; 4] {
        let field = &self.ring.primes()[0].montgomery;
        let [root, right, left, _] = coefficients;
        // What of c_0 is not of the monomials is the last leaf.
        let last = MONOMIALS.iter().zip(coefficients).fold(self.reply.0[0][0][0], |rest, term| {
            let term = field.multiply(self.known(term.0, 0, 0), field.residue(term.1));
            field.subtract(rest, term)
        });
        let (last, modulus) = (last.cast_signed(), field.modulus().cast_signed());
        let last = if last > modulus / 2 { last - modulus } else { last };
        let second = last.wrapping_add(root);
        [second.wrapping_add(left), second, last.wrapping_add(right), last]
    }

    /// Words of components 1 to D, as parts of their primes.
    fn parts<'a>(&'a self, component: usize) -> impl Iterator<Item = (u64, u64)> + 'a {
        let words = self.reply.0[component].iter().zip(self.ring.primes());
        words.flat_map(|(words, prime)| words.iter().map(|&word| (word, prime.modulus())))
    }
}

/// Pearson's chi-squared of residues against the uniform distribution, in standard deviations
/// from its mean.
fn deviation(parts: impl Iterator<Item = (u64, u64)>) -> f64 {
    let mut bins = [0u32; BINS];
    let mut count = 0.0;
    for (word, modulus) in parts {
        let bin = u128::from(word) * BINS as u128 / u128::from(modulus);
        bins[usize::try_from(bin).unwrap()] += 1;
        count += 1.0;
    }
    let expected = count / BINS as f64;
    let chi = bins.iter().map(|&found| (f64::from(found) - expected).powi(2) / expected);
    (chi.sum::<f64>() - (BINS - 1) as f64) / (2.0 * (BINS - 1) as f64).sqrt()
}

#[test]
fn linear_algebra_gives_the_leaves_of_a_reply_that_is_not_hidden() {
    let leaves = [-127, 31, 64, 5];
    let party = Party::new(tree(leaves), PARAMETERS, false, PARAMETERS.primes);
    let view = View::of(&party, &party.upload(1));
    let (coefficients, explained) = view.solve();
    assert_eq!(explained, view.ring.dimension());
    assert_eq!(view.leaves(coefficients), leaves);
}

#[test]
fn linear_algebra_gives_nothing_of_a_hidden_reply() {
    let leaves = [-127, 31, 64, 5];
    let party = Party::new(tree(leaves), PARAMETERS, true, PARAMETERS.primes);
    let upload = party.upload(1);
    let view = View::of(&party, &upload);
    let (coefficients, explained) = view.solve();
    // The points that were solved for, and no other.
    assert_eq!(explained, MONOMIALS.len());
    assert!(coefficients.iter().all(|coefficient| coefficient.unsigned_abs() > 1 << 20));
    assert_ne!(view.leaves(coefficients), leaves);
    // Nor does the next reply to the same upload say the same.
    assert_ne!(View::of(&party, &upload).solve().0, coefficients);
}

#[test]
fn components_of_hidden_replies_and_their_differences_are_uniform() {
    let party = Party::new(tree([-127, 31, 64, 5]), PARAMETERS, true, PARAMETERS.primes);
    let upload = party.upload(1);
    let views = [(); 2].map(|()| View::of(&party, &upload));
    for component in 1..=DEGREE as usize {
        let parts: Vec<Vec<_>> = views.iter().map(|view| view.parts(component).collect()).collect();
        let differences = parts[0].iter().zip(&parts[1]).map(|(&(left, modulus), &(right, _))| {
            assert_ne!(left, right);
            ((left + modulus - right) % modulus, modulus)
        });
        assert!(deviation(differences).abs() < 8.0, "differences of c_{component}");
        for parts in parts {
            assert!(deviation(parts.into_iter()).abs() < 8.0, "c_{component}");
        }
    }
    // The test sees what is not uniform: residues of which one in twenty is small.
    let modulus = 1 << 51;
    let words = (0..24_576u64).map(|at| if at % 20 == 0 { at } else { at * (modulus / 24_576) });
    assert!(deviation(words.map(|word| (word, modulus))) > 8.0);
}
