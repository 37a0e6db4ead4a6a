//! Whether noise is at most what it was.
//!
//! The noise of a ciphertext is a sum, with integer factors, of what inputs and bootstraps bring
//! and of what keyswitches add. All of them are taken to be independent, as Concrete takes them
//! when it chooses parameters; keyswitches of `x` and of `-x` add one noise and its negative. No
//! variance is computed: one sum is at most another when it has no more of each kind of noise,
//! where less of one kind may make up for more of another that is never larger.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::index_of;
use crate::circuit::{Affine, Circuit, Root, Term};
use crate::parameters::{BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters};

/// Steps of adding up and comparing noises, above which nothing is said about them. The sums take
/// 16 bytes a step at most.
const MAX_STEPS: usize = 1 << 22;

/// Where noise comes from. Noises of one kind have the same variance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Input { argument: u32 },
    Keyswitch { key: u32 },
    Bootstrap { key: u32 },
}

impl Kind {
    fn of(root: &Root) -> Self {
        match *root {
            Root::Input { argument, .. } => Self::Input { argument },
            Root::Keyswitch { key, .. } => Self::Keyswitch { key },
            Root::Bootstrap { key, .. } => Self::Bootstrap { key },
        }
    }
}

/// How often each kind of noise is in a sum, by variance: sums of squared factors.
#[derive(Default)]
pub(super) struct Noise(BTreeMap<Kind, u128>);

impl Noise {
    /// Takes in one more noise by the square of its factor; none when that is too much.
    fn add(&mut self, kind: Kind, square: u128) -> Option<()> {
        let all = self.0.entry(kind).or_default();
        *all = all.checked_add(square)?;
        Some(())
    }
}

/// The noises that the ciphertexts of a circuit are made of.
pub(super) struct Noises<'a> {
    keyset: &'a KeysetParameters,
    kinds: Vec<Kind>,
    /// For each root, roots and by which factor the noise that they bring is in it.
    sums: Vec<Vec<(u32, i64)>>,
    /// The first keyswitch of these terms, or of their negatives, by the key.
    keyswitches: HashMap<(Vec<Term>, u32), u32>,
    steps: Cell<usize>,
}

impl<'a> Noises<'a> {
    pub(super) fn new(keyset: &'a KeysetParameters) -> Self {
        let (kinds, sums) = (Vec::new(), Vec::new());
        Self { keyset, kinds, sums, keyswitches: HashMap::new(), steps: Cell::new(0) }
    }

    /// Of all roots; none when there is too much to add up.
    pub(super) fn of(circuit: &Circuit, keyset: &'a KeysetParameters) -> Option<Self> {
        let mut noises = Self::new(keyset);
        circuit.roots.iter().try_for_each(|root| noises.push(root))?;
        Some(noises)
    }

    pub(super) fn keyset(&self) -> &'a KeysetParameters {
        self.keyset
    }

    /// Whether there was too much to add up.
    pub(super) fn are_exhausted(&self) -> bool {
        self.steps.get() > MAX_STEPS
    }

    fn step(&self, steps: usize) -> Option<()> {
        self.steps.set(self.steps.get().saturating_add(steps));
        (!self.are_exhausted()).then_some(())
    }

    /// The next root; none when there is too much to add up.
    pub(super) fn push(&mut self, root: &Root) -> Option<()> {
        let next = index_of(self.sums.len());
        let sum = match root {
            Root::Input { .. } | Root::Bootstrap { .. } => vec![(next, 1)],
            Root::Keyswitch { input, key } => {
                let mut sum = self.sum(input)?;
                let mut terms = input.terms.clone();
                let negated = terms.first().is_some_and(|term| term.coefficient < 0);
                if negated {
                    for term in &mut terms {
                        term.coefficient = term.coefficient.checked_neg()?;
                    }
                }
                let own = *self.keyswitches.entry((terms, *key)).or_insert(next);
                sum.push((own, if negated { -1 } else { 1 }));
                sum
            }
        };
        self.kinds.push(Kind::of(root));
        self.sums.push(sum);
        Some(())
    }

    /// Of an affine of these roots; none when it cannot be told.
    pub(super) fn of_affine(&self, affine: &Affine) -> Option<Noise> {
        let mut noise = Noise::default();
        for (root, factor) in self.sum(affine)? {
            let square = u128::from(factor.unsigned_abs()).pow(2);
            noise.add(self.kinds[root as usize], square)?;
        }
        Some(noise)
    }

    /// Of a root that is computed from these; none when it cannot be told.
    pub(super) fn of_root(&self, root: &Root) -> Option<Noise> {
        let mut noise = match root {
            Root::Keyswitch { input, .. } => self.of_affine(input)?,
            Root::Input { .. } | Root::Bootstrap { .. } => Noise::default(),
        };
        noise.add(Kind::of(root), 1)?;
        Some(noise)
    }

    fn sum(&self, affine: &Affine) -> Option<Vec<(u32, i64)>> {
        let mut factors: BTreeMap<u32, i64> = BTreeMap::new();
        for term in &affine.terms {
            let sum = &self.sums[term.root as usize];
            self.step(sum.len())?;
            for &(root, factor) in sum {
                let factor = factor.checked_mul(term.coefficient)?;
                let all = factors.entry(root).or_default();
                *all = all.checked_add(factor)?;
            }
        }
        Some(factors.into_iter().collect())
    }

    /// Whether the variance of the one noise is at most that of the other, whatever the variance
    /// of each kind is; none when there is too much to compare.
    pub(super) fn at_most(&self, one: &Noise, other: &Noise) -> Option<bool> {
        let mut spare = other.0.clone();
        let mut missing = Vec::new();
        for (&kind, &size) in &one.0 {
            let found = spare.entry(kind).or_default();
            let common = size.min(*found);
            *found -= common;
            if common < size {
                missing.push((kind, size - common));
            }
        }
        spare.retain(|_, found| *found > 0);
        self.step(missing.len().saturating_mul(spare.len()))?;
        Some(missing.into_iter().all(|(kind, mut size)| {
            for (&other, found) in &mut spare {
                if never_larger(kind, other, self.keyset) {
                    let made_up = size.min(*found);
                    *found -= made_up;
                    size -= made_up;
                }
            }
            size == 0
        }))
    }
}

/// Whether a noise of the one kind has at most the variance of one of the other: each of the
/// parameters that it grows with is at most the other's, and the decompositions are the same. The
/// variances are monotonic in these in Chillotti, Gama, Georgieva and Izabachène, "TFHE: Fast Fully
/// Homomorphic Encryption over the Torus", section 4, and in what rounding in the Fourier domain
/// adds.
fn never_larger(one: Kind, other: Kind, keyset: &KeysetParameters) -> bool {
    let of = |key: u32| key as usize;
    match (one, other) {
        (Kind::Bootstrap { key: one }, Kind::Bootstrap { key: other }) => {
            let keys = &keyset.bootstrap_keys;
            bootstrap_never_larger(&keys[of(one)], &keys[of(other)], keyset)
        }
        (Kind::Keyswitch { key: one }, Kind::Keyswitch { key: other }) => {
            let keys = &keyset.keyswitch_keys;
            keyswitch_never_larger(&keys[of(one)], &keys[of(other)], keyset)
        }
        _ => one == other,
    }
}

fn bootstrap_never_larger(
    one: &BootstrapKeyParameters,
    other: &BootstrapKeyParameters,
    keyset: &KeysetParameters,
) -> bool {
    let sizes = |key: &BootstrapKeyParameters| {
        let masks = key.glwe_dimension * key.polynomial_size;
        let steps = keyset.dimension(key.input_key);
        [steps, key.polynomial_size, masks, masks + key.polynomial_size]
    };
    (one.base_log, one.level_count) == (other.base_log, other.level_count)
        && one.variance <= other.variance
        && sizes(one).iter().zip(sizes(other)).all(|(&one, other)| one <= other)
}

fn keyswitch_never_larger(
    one: &KeyswitchKeyParameters,
    other: &KeyswitchKeyParameters,
    keyset: &KeysetParameters,
) -> bool {
    (one.base_log, one.level_count) == (other.base_log, other.level_count)
        && one.variance <= other.variance
        && keyset.dimension(one.input_key) <= keyset.dimension(other.input_key)
}
