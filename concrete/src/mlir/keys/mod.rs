//! Which key of the keyset is which.
//!
//! A keyset says parameters only. Keys of partitions were merged where they came out equal, and
//! then numbered by first use in program order; all of them are used. So there is a search, depth
//! first: each new partition takes a bootstrap key that is taken already, or the next; each new way
//! from block to table, and from table to block, a keyswitch key that fits, taken already or the
//! next. At the end none may be left over. There is one such assignment; none or several are
//! refused.

use std::collections::{HashMap, HashSet};

use cipherscore_engine::parameters::Signature;

use super::error::LowerMlirError;
use super::graph::{Graph, Partitions, Route};
use super::limits::{MAX_KEY_NEEDS, MAX_KEY_STEPS};

/// Keys of a circuit, by partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    /// For each partition, the secret key of everything but what goes into a bootstrap.
    pub(super) secret: Vec<usize>,
    /// For each partition, its bootstrap key; none only where there are no tables.
    pub(super) bootstrap: Vec<Option<usize>>,
    /// From a block's partition to a table's: the keyswitch key.
    pub(super) keyswitch: HashMap<(usize, usize), usize>,
    /// From a table's partition to a block's: the keyswitch key; none where both have one key.
    pub(super) conversion: HashMap<(usize, usize), Option<usize>>,
}

/// What needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Need {
    Bootstrap(usize),
    Keyswitch(usize, usize),
    Conversion(usize, usize),
}

/// Keys that are taken so far.
#[derive(Clone)]
struct State {
    /// Key of each need that is met, in their order; none where none is needed after all.
    taken: Vec<Option<usize>>,
    /// Secret key of each partition, as far as it is known.
    secret: Vec<Option<usize>>,
    /// Bootstrap key of each partition, as far as it is known.
    bootstrap: Vec<Option<usize>>,
    /// Bootstrap keys below are taken.
    next_bootstrap: usize,
    /// Keyswitch keys below are taken.
    next_keyswitch: usize,
}

/// The assignment that fits.
pub(super) fn assign(
    graph: &Graph,
    partitions: &Partitions,
    signature: &Signature,
) -> Result<Assignment, LowerMlirError> {
    let routes = graph.tables.iter().flatten().map(|&node| partitions.route(graph, node));
    let needs = needs(routes);
    let mut secret = vec![None; partitions.count];
    let gates = graph.arguments.iter().zip(&signature.inputs);
    let gates = gates.chain(graph.outputs.iter().zip(&signature.outputs));
    for (&node, gate) in gates {
        if *secret[partitions.blocks[node]].get_or_insert(gate.key) != gate.key {
            return fault("an input or an output is under another key than what it is added to");
        }
    }
    if needs.len() > MAX_KEY_NEEDS {
        return Err(LowerMlirError::too_large("ways between keys", MAX_KEY_NEEDS));
    }
    let first = State {
        taken: Vec::new(),
        secret,
        bootstrap: vec![None; partitions.count],
        next_bootstrap: 0,
        next_keyswitch: 0,
    };
    Search { needs, signature, open: Vec::new(), steps: 0 }.run(first)
}

fn fault<T>(reason: impl Into<String>) -> Result<T, LowerMlirError> {
    Err(LowerMlirError::Keys { reason: reason.into() })
}

/// Each need once, in the order in which tables bring them up.
fn needs(routes: impl Iterator<Item = Route>) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut known = HashSet::new();
    for Route { source, table, block } in routes {
        let all = [
            Some(Need::Bootstrap(table)),
            Some(Need::Keyswitch(source, table)),
            (table != block).then_some(Need::Conversion(table, block)),
        ];
        needs.extend(all.into_iter().flatten().filter(|need| known.insert(*need)));
    }
    needs
}

struct Search<'a> {
    needs: Vec<Need>,
    signature: &'a Signature,
    /// Where to go on.
    open: Vec<State>,
    steps: usize,
}

impl Search<'_> {
    fn run(mut self, first: State) -> Result<Assignment, LowerMlirError> {
        let mut found: Option<Assignment> = None;
        self.open.push(first);
        while let Some(state) = self.open.pop() {
            if let Some(&need) = self.needs.get(state.taken.len()) {
                self.meet(need, &state)?;
            } else if let Some(assignment) = self.complete(state) {
                if found.is_some() {
                    return fault("there are several ways to assign them");
                }
                found = Some(assignment);
            }
        }
        found.map_or_else(|| fault("there is no way to assign them"), Ok)
    }

    /// Goes on in all ways to meet a need.
    fn meet(&mut self, need: Need, state: &State) -> Result<(), LowerMlirError> {
        let keyset = &self.signature.keyset;
        match need {
            Need::Bootstrap(partition) => {
                let numbered = keyset.bootstrap_keys.iter().enumerate();
                for (id, key) in numbered.take(state.next_bootstrap + 1) {
                    let mut next = state.taking(Some(id));
                    next.next_bootstrap = next.next_bootstrap.max(id + 1);
                    next.bootstrap[partition] = Some(id);
                    self.go_on(next, partition, key.output_key)?;
                }
            }
            Need::Keyswitch(source, table) => {
                let small = state.bootstrap[table].map(|id| keyset.bootstrap_keys[id].input_key);
                let numbered = keyset.keyswitch_keys.iter().enumerate();
                for (id, key) in numbered.take(state.next_keyswitch + 1) {
                    if Some(key.output_key) == small {
                        let next = state.taking_keyswitch(id);
                        self.go_on(next, source, key.input_key)?;
                    }
                }
            }
            Need::Conversion(table, block) => {
                // The table's bootstrap key is met before, and with it its secret key.
                let Some(from) = state.secret[table] else { return Ok(()) };
                self.go_on(state.taking(None), block, from)?;
                let numbered = keyset.keyswitch_keys.iter().enumerate();
                for (id, key) in numbered.take(state.next_keyswitch + 1) {
                    if key.input_key == from && key.output_key != from {
                        let next = state.taking_keyswitch(id);
                        self.go_on(next, block, key.output_key)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with a state, if the partition can have this secret key.
    fn go_on(
        &mut self,
        mut state: State,
        partition: usize,
        key: usize,
    ) -> Result<(), LowerMlirError> {
        if *state.secret[partition].get_or_insert(key) != key {
            return Ok(());
        }
        self.steps += 1;
        if self.steps > MAX_KEY_STEPS {
            return fault("there are too many ways to assign them");
        }
        self.open.push(state);
        Ok(())
    }

    /// The assignment, if no key is left over.
    fn complete(&self, state: State) -> Option<Assignment> {
        let keyset = &self.signature.keyset;
        let all_taken = state.next_bootstrap == keyset.bootstrap_keys.len()
            && state.next_keyswitch == keyset.keyswitch_keys.len();
        let secret = state.secret.into_iter().collect::<Option<_>>().filter(|_| all_taken)?;
        let (mut keyswitch, mut conversion) = (HashMap::new(), HashMap::new());
        for (need, key) in self.needs.iter().zip(state.taken) {
            match (*need, key) {
                (Need::Keyswitch(source, table), Some(key)) => {
                    keyswitch.insert((source, table), key);
                }
                (Need::Conversion(table, block), key) => {
                    conversion.insert((table, block), key);
                }
                _ => {}
            }
        }
        Some(Assignment { secret, bootstrap: state.bootstrap, keyswitch, conversion })
    }
}

impl State {
    fn taking(&self, key: Option<usize>) -> Self {
        let mut state = self.clone();
        state.taken.push(key);
        state
    }

    fn taking_keyswitch(&self, key: usize) -> Self {
        let mut state = self.taking(Some(key));
        state.next_keyswitch = state.next_keyswitch.max(key + 1);
        state
    }
}

#[cfg(test)]
mod tests;
