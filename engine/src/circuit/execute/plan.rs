//! What is known of a circuit's order before any row begins.

use crate::circuit::{Root, ValidCircuit};
use crate::evaluation_keys::{MAX_GROUP, max_bootstraps};
use crate::parameters::KeysetParameters;

/// A key, and so a queue of roots that may be computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Bootstrap(usize),
    Keyswitch(usize),
}

/// Who waits for whom: the circuit's terms turned around. Inputs are there from the start, so
/// nobody waits for them.
pub(super) struct Plan {
    /// For each root, the roots computed from it.
    pub(super) dependents: Vec<Vec<u32>>,
    /// For each root, on how many roots it waits; none for an input, which is not computed.
    pub(super) waits_for: Vec<Option<u32>>,
    /// For each root, how many roots and output ciphertexts read it.
    pub(super) uses: Vec<u32>,
    /// For each root, its queue.
    pub(super) queues: Vec<u32>,
    /// For each root, what is to be read of keys from its computation to the last one that depends
    /// on it, in bytes: about the time of the rest of the row, on any number of threads.
    pub(super) way: Vec<u64>,
    /// The key of each queue, and how many of its operations are done together at most.
    pub(super) keys: Vec<(Key, usize)>,
    /// Roots that are computed.
    pub(super) computed: usize,
}

impl Plan {
    pub(super) fn of(circuit: &ValidCircuit) -> Self {
        let keyset = &circuit.signature().keyset;
        let roots = &circuit.circuit().roots;
        let keys = keys_of(keyset);
        let mut plan = Self {
            dependents: vec![Vec::new(); roots.len()],
            waits_for: vec![None; roots.len()],
            uses: vec![0; roots.len()],
            queues: vec![0; roots.len()],
            way: vec![0; roots.len()],
            computed: 0,
            keys: keys.iter().map(|(key, group, _)| (*key, *group)).collect(),
        };
        for (index, root) in (0u32..).zip(roots) {
            let Some(input) = root.input() else { continue };
            let mut waits = 0;
            for term in &input.terms {
                if plan.waits_for[term.root as usize].is_some() {
                    plan.dependents[term.root as usize].push(index);
                    waits += 1;
                }
                plan.uses[term.root as usize] += 1;
            }
            plan.waits_for[index as usize] = Some(waits);
            plan.computed += 1;
            plan.queues[index as usize] = match root {
                Root::Keyswitch { key, .. } => u32_of(keyset.bootstrap_keys.len()) + key,
                Root::Bootstrap { key, .. } => *key,
                Root::Input { .. } => unreachable!("inputs have no input"),
            };
        }
        for term in circuit.circuit().outputs.iter().flatten().flat_map(|affine| &affine.terms) {
            plan.uses[term.root as usize] += 1;
        }
        for index in (0..roots.len()).rev().filter(|&index| plan.waits_for[index].is_some()) {
            let after = plan.dependents[index].iter().map(|&root| plan.way[root as usize]).max();
            plan.way[index] = keys[plan.queues[index] as usize].2 + after.unwrap_or(0);
        }
        plan
    }

    /// The roots that wait for nothing.
    pub(super) fn first(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.waits_for).filter(|(_, waits)| **waits == Some(0)).map(|(root, _)| root)
    }
}

/// For each key, how many of its operations are done together, and its bytes.
fn keys_of(keyset: &KeysetParameters) -> Vec<(Key, usize, u64)> {
    let words = keyset.bootstrap_key_words();
    let bootstraps = keyset.bootstrap_keys.iter().zip(words).enumerate();
    let bootstraps = bootstraps.map(|(index, (is, words))| {
        (Key::Bootstrap(index), max_bootstraps(is), 8 * (words * (is.glwe_dimension + 1)) as u64)
    });
    let words = keyset.keyswitch_key_words();
    let keyswitches = keyset.keyswitch_keys.iter().zip(words).enumerate();
    let keyswitches = keyswitches.map(|(index, (is, words))| {
        let size = keyset.dimension(is.output_key) + 1;
        (Key::Keyswitch(index), MAX_GROUP, 8 * (words * size) as u64)
    });
    bootstraps.chain(keyswitches).collect()
}

/// Keysets are validated to have few keys.
fn u32_of(keys: usize) -> u32 {
    u32::try_from(keys).expect("validated keysets have few keys")
}

impl ValidCircuit {
    /// How many rows are evaluated at a time on so many threads: enough for two full groups for
    /// each thread if each row has as many roots ready as it has on the average, and not more than
    /// [`MAX_ROWS_BYTES`] of them.
    pub fn rows_at_a_time(&self, threads: usize) -> usize {
        /// Groups for each thread, so that there are full ones of some key.
        const GROUPS: usize = 2;
        let roots = &self.circuit().roots;
        // For each root, the longest chain of roots that ends in it.
        let mut chains = vec![0usize; roots.len()];
        for (index, root) in roots.iter().enumerate() {
            let Some(input) = root.input() else { continue };
            let before = input.terms.iter().map(|term| chains[term.root as usize]).max();
            chains[index] = 1 + before.unwrap_or(0);
        }
        let longest = chains.iter().max().copied().unwrap_or(0).max(1);
        let computed = chains.iter().filter(|&&chain| chain > 0).count();
        let wanted = GROUPS * MAX_GROUP * threads;
        let rows = match computed {
            0 => threads,
            _ => wanted.saturating_mul(longest).div_ceil(computed),
        };
        rows.min(MAX_ROWS_BYTES / self.footprint().row_bytes).max(1)
    }
}

/// Bytes of the rows that are evaluated at a time, if it is not one row.
pub const MAX_ROWS_BYTES: usize = 256 << 20;
