//! Many rows of one circuit: each gives what it gives alone, in any pool.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod circuits;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{
    Affine, Circuit, EvaluateError, Rows, Step, ValidCircuit, evaluate, evaluate_rows,
};
use circuits::{
    KEYS, VALUES, bootstrap, encrypted, input, redundant, signature, switch, table, terms,
};

#[derive(Debug, PartialEq)]
enum Failure {
    Evaluation(EvaluateError),
    Row(usize),
    Panics,
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Self {
        Self::Evaluation(error)
    }
}

/// Rows that look at who asks for them.
struct Watched<'a> {
    rows: &'a [Vec<Ciphertexts>],
    wrong: Option<(usize, Failure)>,
    outputs: Vec<Mutex<Option<Vec<Ciphertexts>>>>,
    begun: AtomicUsize,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
}

impl<'a> Watched<'a> {
    fn new(rows: &'a [Vec<Ciphertexts>]) -> Self {
        Self {
            rows,
            wrong: None,
            outputs: rows.iter().map(|_| Mutex::default()).collect(),
            begun: AtomicUsize::new(0),
            at_work: AtomicUsize::new(0),
            most_at_work: AtomicUsize::new(0),
        }
    }

    fn outputs(self) -> Vec<Vec<Ciphertexts>> {
        self.outputs.into_iter().map(|outputs| outputs.into_inner().unwrap().unwrap()).collect()
    }
}

impl Rows for Watched<'_> {
    type Error = Failure;

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn inputs(&self, row: usize) -> Result<Cow<'_, [Ciphertexts]>, Failure> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let at_work = self.at_work.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_work.fetch_max(at_work, Ordering::Relaxed);
        match &self.wrong {
            Some((wrong, Failure::Panics)) if *wrong == row => panic!("a bug in a row"),
            Some((wrong, _)) if *wrong == row => Err(Failure::Row(row)),
            _ => Ok(self.rows[row].as_slice().into()),
        }
    }

    fn outputs(&self, row: usize, outputs: Vec<Ciphertexts>) {
        self.at_work.fetch_sub(1, Ordering::Relaxed);
        let before = self.outputs[row].lock().unwrap().replace(outputs);
        assert!(before.is_none(), "row {row} twice");
    }
}

fn rows(count: usize) -> Vec<Vec<Ciphertexts>> {
    let gates = &signature().inputs;
    let row = |row: i64| {
        let (a, b, c) = (row % VALUES, row / VALUES % VALUES, row / 3 % VALUES);
        vec![encrypted(&[a, b], &gates[0]), encrypted(&[c], &gates[1])]
    };
    (0..count).map(|index| row(i64::try_from(index).unwrap())).collect()
}

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Several chains, of which each step needs the one before and a neighbour.
fn braid() -> Circuit {
    const CHAINS: u32 = 3;
    let mut roots = vec![input(0, 0), input(0, 1), input(1, 0)];
    let mut ends = [0, 1, 2];
    for step in 0..4u32 {
        let before = ends;
        for chain in 0..CHAINS {
            let (own, next) = (before[chain as usize], before[((chain + 1) % CHAINS) as usize]);
            let mut both = [(own, 1), (next, 1)];
            both.sort_unstable();
            roots.push(switch(terms(&both, 0)));
            let switched = u32::try_from(roots.len()).unwrap() - 1;
            roots.push(bootstrap(switched, (step + chain) % 2));
            ends[chain as usize] = switched + 1;
        }
    }
    let tables = vec![table(|x| x / 2), table(|x| (x + 1) / 3)];
    Circuit {
        roots,
        tables,
        outputs: vec![vec![terms(&[(ends[0], 1)], 1), Affine::of_root(ends[1])]],
    }
}

fn alone(circuit: &ValidCircuit, rows: &[Vec<Ciphertexts>]) -> Vec<Vec<Ciphertexts>> {
    let evaluate = |row: &Vec<Ciphertexts>| evaluate(circuit, &KEYS.prepared, row, &go_on).unwrap();
    rows.iter().map(evaluate).collect()
}

#[test]
fn rows_together_give_what_each_gives_alone_bit_for_bit() {
    for circuit in [redundant(), braid()] {
        let circuit = circuit.validate(signature()).unwrap();
        let inputs = rows(37);
        let expected = in_pool(1, || alone(&circuit, &inputs));
        for (threads, count) in [(1, 37), (2, 37), (3, 20), (8, 37), (2, 1), (4, 2)] {
            let watched = Watched::new(&inputs[..count]);
            let steps = AtomicUsize::new(0);
            let observer = |_| {
                steps.fetch_add(1, Ordering::Relaxed);
                ControlFlow::Continue(())
            };
            let keys = &KEYS.prepared;
            in_pool(threads, || evaluate_rows(&circuit, keys, &watched, &observer)).unwrap();
            let cost = circuit.circuit().cost();
            assert_eq!(steps.into_inner(), count * (cost.bootstraps + cost.keyswitches));
            assert_eq!(watched.begun.load(Ordering::Relaxed), count);
            let most = watched.most_at_work.load(Ordering::Relaxed);
            assert!(most <= circuit.rows_at_a_time(threads), "{most} rows on {threads} threads");
            assert!(watched.outputs() == expected[..count], "{count} rows on {threads} threads");
        }
    }
}

#[test]
fn rows_without_anything_to_compute_and_no_rows_at_all() {
    let outputs = vec![vec![terms(&[(0, 1), (1, 2)], 1), Affine::of_root(1)]];
    let linear = Circuit { roots: vec![input(0, 0), input(0, 1)], tables: vec![], outputs };
    let linear = linear.validate(signature()).unwrap();
    let inputs = rows(50);
    let watched = Watched::new(&inputs);
    evaluate_rows(&linear, &KEYS.prepared, &watched, &go_on).unwrap();
    assert!(watched.outputs() == alone(&linear, &inputs));
    let none = Watched::new(&[]);
    evaluate_rows(&linear, &KEYS.prepared, &none, &go_on).unwrap();
    assert!(none.outputs().is_empty());
}

#[test]
fn a_row_that_is_wrong_ends_the_evaluation() {
    let circuit = braid().validate(signature()).unwrap();
    let mut inputs = rows(60);
    for (threads, wrong) in [(1, 0), (2, 7), (3, 59)] {
        let watched =
            Watched { wrong: Some((wrong, Failure::Row(wrong))), ..Watched::new(&inputs) };
        let keys = &KEYS.prepared;
        let refused = in_pool(threads, || evaluate_rows(&circuit, keys, &watched, &go_on));
        assert_eq!(refused, Err(Failure::Row(wrong)));

        let watched = Watched { wrong: Some((wrong, Failure::Panics)), ..Watched::new(&inputs) };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            in_pool(threads, || evaluate_rows(&circuit, keys, &watched, &go_on))
        }));
        assert!(panicked.is_err());
    }
    inputs[11].pop();
    let watched = Watched::new(&inputs);
    let refused = evaluate_rows(&circuit, &KEYS.prepared, &watched, &go_on);
    assert!(matches!(refused, Err(Failure::Evaluation(EvaluateError::Input { input: 1, .. }))));
}

#[test]
fn cancelling_ends_it_after_the_groups_at_hand() {
    const THREADS: usize = 2;
    let circuit = braid().validate(signature()).unwrap();
    let inputs = rows(30);
    for more in [0, 1, 100] {
        let (watched, steps) = (Watched::new(&inputs), AtomicUsize::new(0));
        let observer = |_| match steps.fetch_add(1, Ordering::Relaxed) >= more {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let keys = &KEYS.prepared;
        let cancelled = in_pool(THREADS, || evaluate_rows(&circuit, keys, &watched, &observer));
        assert_eq!(cancelled, Err(Failure::Evaluation(EvaluateError::Cancelled)));
        assert!(steps.into_inner() <= more + THREADS, "a group went on");
    }
}
