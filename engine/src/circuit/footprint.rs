//! Memory that the evaluation of rows takes, known before it begins.

use super::{Affine, Circuit, Root, ValidCircuit};
use crate::evaluation_keys::{bootstrap_bytes, keyswitch_bytes};

/// Upper bound of what rows take while they are evaluated, beside keys and circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Of each row at work: expanded inputs, ciphertexts between computation and last use, outputs;
    /// bytes.
    pub row_bytes: usize,
    /// Of each thread, whatever rows it works on: ciphertexts at hand, the buffers of a group;
    /// bytes.
    pub thread_bytes: usize,
}

impl Footprint {
    /// Bytes of so many rows at work on so many threads; saturates.
    pub fn bytes(&self, rows: usize, threads: usize) -> usize {
        let rows = self.row_bytes.saturating_mul(rows);
        rows.saturating_add(self.thread_bytes.saturating_mul(threads))
    }
}

impl ValidCircuit {
    /// Memory of evaluating rows.
    pub fn footprint(&self) -> Footprint {
        /// Counters, locks and lists of the executor: for a root, and for a term.
        const ROOT_BYTES: usize = 96;
        const TERM_BYTES: usize = 8;

        let (signature, circuit) = (self.signature(), self.circuit());
        let gates = |gates: &[crate::parameters::Gate]| {
            gates.iter().map(|gate| gate.len() * ciphertext_bytes(gate.lwe_dimension)).sum()
        };
        let (inputs, outputs): (usize, usize) =
            (gates(&signature.inputs), gates(&signature.outputs));
        let terms = circuit.roots.iter().filter_map(Root::input).map(|affine| affine.terms.len());
        let bookkeeping = ROOT_BYTES * circuit.roots.len() + TERM_BYTES * terms.sum::<usize>();
        let dimensions = signature.keyset.secret_keys.iter().map(|key| key.lwe_dimension);
        let largest = ciphertext_bytes(dimensions.max().unwrap_or(0));
        let (keyset, cost) = (&signature.keyset, circuit.cost());
        // The buffers of one thread serve all keys in turn, each kind its own.
        let bootstraps = keyset.bootstrap_keys.iter().map(|key| bootstrap_bytes(key, keyset));
        let keyswitches = keyset.keyswitch_keys.iter().map(|key| keyswitch_bytes(key, keyset));
        let bootstraps = bootstraps.max().filter(|_| cost.bootstraps > 0).unwrap_or(0);
        let keyswitches = keyswitches.max().filter(|_| cost.keyswitches > 0).unwrap_or(0);
        Footprint {
            row_bytes: inputs + outputs + self.live_bytes() + bookkeeping,
            // A ciphertext and its sum, or a mask and the stream that it is cut from.
            thread_bytes: 3 * largest + bootstraps + keyswitches,
        }
    }

    /// Bytes of the ciphertexts that can be alive at a time, in whatever order the roots run.
    ///
    /// A root with a single use is gone when its dependent is computed, so the two are never alive
    /// together. Roots are linked to chains by such uses, each dependent to one of its roots; of a
    /// chain one ciphertext is alive at a time, and the bound is the sum of the largest of each
    /// chain. No order has more alive; one that goes depth first has far less.
    fn live_bytes(&self) -> usize {
        let (circuit, keyset) = (self.circuit(), &self.signature().keyset);
        let uses = count_uses(circuit);
        // For each root, the largest ciphertext of the chain that ends in it.
        let mut chains = vec![0usize; circuit.roots.len()];
        for (index, root) in circuit.roots.iter().enumerate() {
            let (affine, key) = match root {
                Root::Input { .. } => continue,
                Root::Keyswitch { input, key } => {
                    (input, keyset.keyswitch_keys[*key as usize].output_key)
                }
                Root::Bootstrap { input, key, .. } => {
                    (input, keyset.bootstrap_keys[*key as usize].output_key)
                }
            };
            // The largest first: a chain counts its largest only.
            let single = affine.terms.iter().map(|term| term.root as usize);
            let before = single.filter(|&root| uses[root] == 1).max_by_key(|&root| chains[root]);
            let before = before.map_or(0, |root| std::mem::take(&mut chains[root]));
            chains[index] = before.max(ciphertext_bytes(keyset.dimension(key)));
        }
        chains.iter().sum()
    }
}

/// For each root, how many roots and output ciphertexts read it.
fn count_uses(circuit: &Circuit) -> Vec<u32> {
    let mut uses = vec![0; circuit.roots.len()];
    let affines = circuit.roots.iter().filter_map(Root::input);
    let affines = affines.chain(circuit.outputs.iter().flatten());
    for term in affines.flat_map(|Affine { terms, .. }| terms) {
        uses[term.root as usize] += 1;
    }
    uses
}

/// With what an allocator and a counted reference add to it.
fn ciphertext_bytes(lwe_dimension: usize) -> usize {
    const OVERHEAD: usize = 64;
    8 * (lwe_dimension + 1) + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ciphertext::{Ciphertexts, StoredCiphertexts};
    use crate::circuit::{EvaluateError, MAX_ROWS_BYTES, Term, evaluate_linear};
    use crate::evaluation_keys::MAX_GROUP;
    use crate::parameters::{
        BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters,
        KeyswitchKeyParameters, SecretKeyParameters, Signature,
    };

    const BIG: usize = 64;
    const SMALL: usize = 8;

    /// One input of two ciphertexts and as many outputs of one as asked for.
    fn valid(roots: Vec<Root>, outputs: &[u32]) -> ValidCircuit {
        let gate = |ciphertexts| Gate {
            shape: vec![ciphertexts],
            key: 0,
            lwe_dimension: BIG,
            variance: 0.0,
            encoding: Encoding { width: 4, signed: false },
            compression: Compression::Seed,
        };
        let keyset = KeysetParameters {
            secret_keys: [BIG, SMALL]
                .map(|lwe_dimension| SecretKeyParameters { lwe_dimension })
                .into(),
            bootstrap_keys: vec![BootstrapKeyParameters {
                input_key: 1,
                output_key: 0,
                level_count: 1,
                base_log: 8,
                glwe_dimension: 2,
                polynomial_size: 32,
                variance: 0.0,
            }],
            keyswitch_keys: vec![KeyswitchKeyParameters {
                input_key: 0,
                output_key: 1,
                level_count: 2,
                base_log: 4,
                variance: 0.0,
            }],
        };
        let outputs: Vec<_> = outputs.iter().map(|&root| vec![Affine::of_root(root)]).collect();
        let gates = vec![gate(1); outputs.len()];
        let signature = Signature { keyset, inputs: vec![gate(2)], outputs: gates };
        let circuit = Circuit { roots, tables: vec![vec![0; 32]], outputs };
        circuit.validate(Arc::new(signature)).unwrap()
    }

    fn input(index: u32) -> Root {
        Root::Input { argument: 0, index }
    }

    fn sum(roots: &[u32]) -> Affine {
        let terms = roots.iter().map(|&root| Term { root, coefficient: 1 });
        Affine { constant: 0, terms: terms.collect() }
    }

    fn switch(roots: &[u32]) -> Root {
        Root::Keyswitch { input: sum(roots), key: 0 }
    }

    fn bootstrap(root: u32) -> Root {
        Root::Bootstrap { input: sum(&[root]), table: 0, key: 0 }
    }

    #[test]
    fn a_chain_has_one_ciphertext_alive_and_a_second_use_ends_it() {
        let (big, small) = (ciphertext_bytes(BIG), ciphertext_bytes(SMALL));
        // One chain through both bootstraps.
        let chain = vec![input(0), switch(&[0]), bootstrap(1), switch(&[2]), bootstrap(3)];
        assert_eq!(valid(chain.clone(), &[4]).live_bytes(), big);
        // The first bootstrap stays for an output, so that another chain begins after it.
        assert_eq!(valid(chain, &[4, 2]).live_bytes(), 2 * big);
        // Two bootstraps are added: one of them may wait for the other.
        let pair = [switch(&[0]), switch(&[1]), bootstrap(2), bootstrap(3), switch(&[4, 5])];
        let roots = [input(0), input(1)].into_iter().chain(pair).collect();
        assert_eq!(valid(roots, &[0]).live_bytes(), 2 * big);
        // Two keyswitches of one input, which is no computed ciphertext.
        let roots = vec![input(0), switch(&[0]), switch(&[0])];
        assert_eq!(valid(roots, &[0]).live_bytes(), 2 * small);
    }

    #[test]
    fn a_row_has_its_gates_and_a_thread_its_buffers() {
        let linear = valid(vec![input(0), input(1)], &[1]).footprint();
        let gates = 2 * ciphertext_bytes(BIG) + ciphertext_bytes(BIG);
        assert!((gates..gates + 1024).contains(&linear.row_bytes));
        assert_eq!(linear.thread_bytes, 3 * ciphertext_bytes(BIG));
        let bootstraps = valid(vec![input(0), switch(&[0]), bootstrap(1)], &[2]).footprint();
        assert!(bootstraps.thread_bytes > linear.thread_bytes + 8 * 3 * 32);
        assert_eq!(bootstraps.bytes(usize::MAX, 1), usize::MAX);
        assert_eq!(bootstraps.bytes(1, usize::MAX), usize::MAX);
        assert_eq!(bootstraps.bytes(3, 2), 3 * bootstraps.row_bytes + 2 * bootstraps.thread_bytes);
    }

    #[test]
    fn narrow_circuits_have_more_rows_at_work() {
        let chain = valid(vec![input(0), switch(&[0]), bootstrap(1)], &[2]);
        // One root is ready of each row.
        assert_eq!(chain.rows_at_a_time(1), 2 * MAX_GROUP);
        assert_eq!(chain.rows_at_a_time(5), 10 * MAX_GROUP);
        let wide = (0..100).flat_map(|_| [switch(&[0])]);
        let wide = valid([input(0)].into_iter().chain(wide).collect(), &[0]);
        assert_eq!(wide.rows_at_a_time(2), 1);
        // As many rows as have room.
        let bytes = chain.footprint().row_bytes;
        assert_eq!(chain.rows_at_a_time(1 << 30), MAX_ROWS_BYTES / bytes);
    }

    #[test]
    fn only_linear_circuits_are_evaluated_without_keys() {
        let words: Vec<u64> = (0..2 * (BIG as u64 + 1)).collect();
        let inputs = [StoredCiphertexts::new(BIG, Compression::None, words.clone())];
        let found = evaluate_linear(&valid(vec![input(0), input(1)], &[1]), &inputs).unwrap();
        assert_eq!(found, [Ciphertexts::new(BIG, words[BIG + 1..].to_vec())]);
        let circuit = valid(vec![input(0), switch(&[0]), bootstrap(1)], &[2]);
        assert_eq!(evaluate_linear(&circuit, &inputs), Err(EvaluateError::NotLinear));
        let wrong = evaluate_linear(&circuit, &[]);
        assert!(matches!(wrong, Err(EvaluateError::Input { .. })));
    }
}
