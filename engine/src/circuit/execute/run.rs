//! One evaluation of rows.
//!
//! Work is done by *tasks* of the rayon pool, at most one for each of its threads. A task looks for
//! something to do, again and again, and ends when there is nothing; whoever makes more ready than
//! it takes itself starts another. No task waits for another one, so other work of the pool is never
//! held up by waiting, and a panic cannot leave anyone waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rayon::Scope;

use super::plan::{Key, Plan};
use super::ready::{Group, Ready};
use super::row::Row;
use super::{EvaluateError, Observer, Rows, Step, check_inputs};
use crate::circuit::{Root, ValidCircuit};
use crate::evaluation_keys::{MAX_GROUP, PreparedKeys, Scratch};

/// What does not change, and the state that does.
pub(super) struct Run<'a, R: Rows> {
    circuit: &'a ValidCircuit,
    keys: &'a PreparedKeys,
    rows: &'a R,
    observer: Observer<'a>,
    plan: Plan,
    /// Threads of the pool.
    threads: usize,
    /// Rows that may be at work.
    rows_at_a_time: usize,
    state: Mutex<State<'a>>,
    stopped: AtomicBool,
    /// The first thing that went wrong.
    error: Mutex<Option<R::Error>>,
    /// Buffers of tasks that have ended.
    buffers: Mutex<Vec<Buffers>>,
}

struct State<'a> {
    ready: Ready,
    /// Rows at work, by their index.
    rows: HashMap<usize, Arc<Row<'a>>>,
    /// Rows that have begun.
    begun: usize,
    /// Rows that have begun and not ended: at work, or still being decoded.
    open: usize,
    /// Tasks that were started and have not ended.
    tasks: usize,
    /// Those of them that wait for a thread of the pool.
    waiting: usize,
    /// Tasks that are doing something.
    busy: usize,
}

/// What a task does next.
enum Work<'a> {
    Begin(usize),
    /// With the row of each root.
    Compute(Group, Vec<Arc<Row<'a>>>),
}

/// What a task uses again and again.
#[derive(Default)]
struct Buffers {
    /// Ciphertexts of a group, one after the other.
    inputs: Vec<u64>,
    scratch: Scratch,
}

impl<'a, R: Rows> Run<'a, R> {
    pub(super) fn new(
        circuit: &'a ValidCircuit,
        keys: &'a PreparedKeys,
        rows: &'a R,
        observer: Observer<'a>,
    ) -> Self {
        let (plan, threads) = (Plan::of(circuit), rayon::current_num_threads());
        let state = State {
            ready: Ready::new(&plan),
            rows: HashMap::new(),
            begun: 0,
            open: 0,
            tasks: 1,
            waiting: 0,
            busy: 0,
        };
        Self {
            circuit,
            keys,
            rows,
            observer,
            plan,
            threads,
            rows_at_a_time: circuit.rows_at_a_time(threads),
            state: Mutex::new(state),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
            buffers: Mutex::default(),
        }
    }

    pub(super) fn evaluate(self) -> Result<(), R::Error> {
        rayon::scope(|scope| self.task(scope));
        match self.error.into_inner() {
            Some(error) => Err(error),
            None if self.stopped.into_inner() => Err(EvaluateError::Cancelled.into()),
            None => Ok(()),
        }
    }

    fn task<'scope>(&'scope self, scope: &Scope<'scope>) {
        let _guard = StopOnPanic(&self.stopped);
        let mut buffers = self.buffers.lock().pop().unwrap_or_default();
        while let Some(work) = self.next(scope) {
            match work {
                Work::Begin(row) => self.begin(row),
                Work::Compute(group, rows) => self.compute(&group, &rows, &mut buffers),
            }
            self.state.lock().busy -= 1;
        }
        self.buffers.lock().push(buffers);
    }

    /// Something to do; none ends the task. Starts another task if there is more.
    fn next<'scope>(&'scope self, scope: &Scope<'scope>) -> Option<Work<'a>> {
        let mut state = self.state.lock();
        if self.stopped.load(Ordering::Relaxed) {
            state.tasks -= 1;
            return None;
        }
        let work = if self.may_begin(&state) {
            state.begun += 1;
            state.open += 1;
            Some(Work::Begin(state.begun - 1))
        } else {
            // While a task waits for a thread, the pool has no idle one: other jobs have them.
            let idle = match state.waiting {
                0 => self.threads.saturating_sub(state.busy),
                _ => 1,
            };
            state.ready.take(&self.plan, idle).map(|group| {
                let rows = group.roots.iter().map(|(row, _)| Arc::clone(&state.rows[row]));
                let rows = rows.collect();
                Work::Compute(group, rows)
            })
        };
        let Some(work) = work else {
            state.tasks -= 1;
            return None;
        };
        state.busy += 1;
        if state.tasks < self.threads && (state.ready.len() > 0 || self.may_begin(&state)) {
            state.tasks += 1;
            state.waiting += 1;
            scope.spawn(|scope| {
                self.state.lock().waiting -= 1;
                self.task(scope);
            });
        }
        Some(work)
    }

    /// Whether there is a row to begin, room for it, and not enough ready for all threads.
    fn may_begin(&self, state: &State<'_>) -> bool {
        state.begun < self.rows.count()
            && state.open < self.rows_at_a_time
            && state.ready.len() < MAX_GROUP * self.threads
    }

    fn begin(&self, row: usize) {
        let inputs = self.rows.inputs(row).and_then(|inputs| {
            let shapes = inputs.iter().map(|input| (input.len(), input.lwe_dimension()));
            check_inputs(self.circuit, shapes)?;
            Ok(inputs)
        });
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(error) => return self.fail(error),
        };
        let begun = Arc::new(Row::new(self.circuit, &self.plan, inputs));
        if self.plan.computed == 0 {
            self.rows.outputs(row, begun.outputs());
            self.state.lock().open -= 1;
            return;
        }
        let mut state = self.state.lock();
        state.rows.insert(row, begun);
        self.plan.first().for_each(|root| state.ready.push(&self.plan, row, root));
    }

    fn fail(&self, error: R::Error) {
        self.error.lock().get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn compute(&self, group: &Group, rows: &[Arc<Row<'a>>], buffers: &mut Buffers) {
        let roots = || group.roots.iter().map(|&(_, root)| root);
        let Buffers { inputs, scratch } = buffers;
        inputs.clear();
        let parameters = self.keys.parameters();
        let under = match group.key {
            Key::Bootstrap(key) => parameters.bootstrap_keys[key].input_key,
            Key::Keyswitch(key) => parameters.keyswitch_keys[key].input_key,
        };
        for (root, row) in roots().zip(rows) {
            row.append_input(root, inputs, parameters.dimension(under));
        }
        let (results, step) = match group.key {
            Key::Keyswitch(key) => (self.keys.keyswitch(key, inputs, scratch), Step::Keyswitch),
            Key::Bootstrap(key) => {
                let tables: Vec<_> = roots().map(|root| self.table(root)).collect();
                (self.keys.bootstrap(key, inputs, &tables, scratch), Step::Bootstrap)
            }
        };
        for _ in rows {
            if (self.observer)(step).is_break() {
                self.stopped.store(true, Ordering::Relaxed);
                return;
            }
        }
        self.keep(group, rows, results);
    }

    fn table(&self, root: u32) -> &'a [u64] {
        let circuit = self.circuit.circuit();
        match &circuit.roots[root as usize] {
            Root::Bootstrap { table, .. } => &circuit.tables[*table as usize],
            _ => unreachable!("bootstraps wait in the queues of their keys"),
        }
    }

    fn keep(&self, group: &Group, rows: &[Arc<Row<'a>>], results: Vec<Vec<u64>>) {
        let mut ready = Vec::new();
        let mut ended = Vec::new();
        for ((&(index, root), row), words) in group.roots.iter().zip(rows).zip(results) {
            if row.keep(&self.plan, root, words, |root| ready.push((index, root))) {
                self.rows.outputs(index, row.outputs());
                ended.push(index);
            }
        }
        let mut state = self.state.lock();
        for (row, root) in ready {
            state.ready.push(&self.plan, row, root);
        }
        for row in ended {
            state.rows.remove(&row);
            state.open -= 1;
        }
    }
}

/// Keeps the pool from finishing an evaluation that has already failed.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
