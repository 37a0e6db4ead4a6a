//! A small world around the state that decides about deliveries: a broker, a store and workers that
//! take every step of a job in any order and die between any two of them. The table of running
//! jobs, the window and the rules are the worker's own; broker and store are modelled as RabbitMQ's
//! quorum queues and Redis behave.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use cipherscore_common::broker::{Delivery, Disposition, Settle, Settled, Settlement, Settling};
use cipherscore_common::message::{Message, headers};
use cipherscore_common::{Digest, JobId, Tenant};

use crate::in_flight::{InFlight, Running};
use crate::slots::{Slot, Slots};
use crate::stop::Stop;
use crate::validate::{BLAME, FORGIVEN, Rules, Tenants};
use crate::window::Window;

mod laws;

const WORKERS: usize = 3;
const SLOTS: usize = 2;
const PREFETCH: usize = 4;
/// Steps after which everything must have come to rest.
const MOST_STEPS: usize = 20_000;

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// The broker delivers to a worker.
    Deliver(usize),
    /// A worker begins the next job of its window.
    Begin(usize),
    /// One of a worker's jobs goes on by one step.
    Advance(usize, usize),
    /// A worker loses its connection, and has another one.
    Disconnect(usize),
    /// A worker dies, and another one takes its place.
    Kill(usize),
    /// The store forgets everything.
    Forget,
    /// The producer publishes a job once more, since it missed the confirm.
    PublishAgain(usize),
}

/// How far a job is at a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Evaluated,
    Confirmed,
    Marked,
}

struct Run {
    job: usize,
    stage: Stage,
    is_alone: bool,
    accused: bool,
    /// Whether its worker has not survived it yet, as far as the store knows.
    blamed: bool,
    running: Running,
    /// None when evaluation is over, unless it runs alone.
    slot: Option<Slot>,
}

/// What the broker has.
#[derive(Default)]
struct Queue {
    /// Jobs that wait, with the number of their returns.
    waiting: VecDeque<(usize, u32)>,
    /// What is delivered and not settled: by worker, connection and tag.
    unsettled: HashMap<(usize, usize, usize), (usize, u32)>,
}

impl Queue {
    /// What was delivered over a connection waits again, before everything else, and is counted.
    fn lose(&mut self, worker: usize, connection: usize) {
        let lost = |key: &(usize, usize, usize)| (key.0, key.1) == (worker, connection);
        let mut back: Vec<_> =
            self.unsettled.extract_if(|key, _| lost(key)).map(|(key, job)| (key.2, job)).collect();
        back.sort_unstable();
        for (_, (job, returned)) in back.into_iter().rev() {
            self.waiting.push_front((job, returned + 1));
        }
    }
}

struct Worker {
    connection: usize,
    window: Window,
    table: InFlight,
    runs: Vec<Run>,
    slots: Arc<Slots>,
}

impl Worker {
    fn new(connection: usize) -> Self {
        Self {
            connection,
            window: Window::default(),
            table: InFlight::default(),
            runs: Vec::new(),
            slots: Arc::new(Slots::new(SLOTS)),
        }
    }
}

struct Job {
    id: JobId,
    poison: bool,
    replies: usize,
    called_poison: bool,
    /// The blame of the times that it ran alone and did not end its worker: all of it where the
    /// worker was killed meanwhile, and what is never forgiven of every other one.
    unlucky: u64,
    /// Whether it was to be called poison.
    accused: bool,
    killed: u32,
}

struct World {
    jobs: Vec<Job>,
    by_id: HashMap<JobId, usize>,
    queue: Arc<Mutex<Queue>>,
    workers: Vec<Worker>,
    done: HashSet<usize>,
    blame: HashMap<usize, u64>,
    forgotten: u32,
    tags: usize,
    /// Whether keys come and go.
    keys_change: bool,
    rules: Rules,
}

/// The worker has survived a run so far.
fn forgive(blame: &mut HashMap<usize, u64>, job: &mut Job, run: &mut Run) {
    if std::mem::take(&mut run.blamed) {
        job.unlucky += u64::from(BLAME - FORGIVEN);
        let blame = blame.entry(run.job).or_default();
        *blame = blame.saturating_sub(FORGIVEN.into());
    }
}

/// Settles with the modelled broker. The tag of a connection that is gone means nothing.
struct Tag(Arc<Mutex<Queue>>, (usize, usize, usize));

impl Settle for Tag {
    fn settle(self: Box<Self>, disposition: Disposition) -> Settling {
        assert_eq!(disposition, Disposition::Ack);
        let found = self.0.lock().unwrap().unsettled.remove(&self.1);
        let told = if found.is_some() { Settled::Told } else { Settled::ComesAgain };
        Box::pin(async move { Ok(told) })
    }
}

fn rules() -> Rules {
    Rules {
        tenants: Tenants::Single,
        worker_users: Vec::new(),
        gateway_users: Vec::new(),
        max_job_rows: 1,
        max_job_bytes: 1,
        max_returns: 3,
    }
}

fn tenant() -> Tenant {
    Tenant::default()
}

impl World {
    fn new(poison: &[bool]) -> Self {
        let job = |poison: &bool| Job {
            id: JobId::random(),
            poison: *poison,
            replies: 0,
            called_poison: false,
            unlucky: 0,
            accused: false,
            killed: 0,
        };
        let jobs: Vec<_> = poison.iter().map(job).collect();
        let waiting = (0..jobs.len()).map(|job| (job, 0)).collect();
        Self {
            by_id: jobs.iter().enumerate().map(|(index, job)| (job.id, index)).collect(),
            jobs,
            queue: Arc::new(Mutex::new(Queue { waiting, unsettled: HashMap::new() })),
            workers: (0..WORKERS).map(|_| Worker::new(0)).collect(),
            done: HashSet::new(),
            blame: HashMap::new(),
            forgotten: 0,
            tags: 0,
            keys_change: true,
            rules: rules(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Deliver(worker) => self.deliver(worker % WORKERS),
            Event::Begin(worker) => self.begin(worker % WORKERS),
            Event::Advance(worker, run) => self.advance(worker % WORKERS, run),
            Event::Disconnect(worker) => self.disconnect(worker % WORKERS),
            Event::Kill(worker) => self.kill(worker % WORKERS),
            Event::Forget => {
                self.forgotten += 1;
                self.done.clear();
                self.blame.clear();
            }
            Event::PublishAgain(job) => {
                let job = job % self.jobs.len();
                // What is called poison would only be called so again.
                if !self.jobs[job].poison {
                    self.queue.lock().unwrap().waiting.push_back((job, 0));
                }
            }
        }
    }

    fn deliver(&mut self, index: usize) {
        let mut queue = self.queue.lock().unwrap();
        let worker = &mut self.workers[index];
        let held = |key: &(usize, usize, usize)| (key.0, key.1) == (index, worker.connection);
        if queue.unsettled.keys().filter(|key| held(key)).count() >= PREFETCH {
            return;
        }
        let Some((job, returned)) = queue.waiting.pop_front() else { return };
        self.tags += 1;
        let tag = (index, worker.connection, self.tags);
        queue.unsettled.insert(tag, (job, returned));
        let id = self.jobs[job].id;
        let mut message = Message { message_id: Some(id.to_string()), ..Message::default() };
        message.set(headers::KEY_ID, Digest::of(id.to_string().as_bytes()).to_string());
        let settlement = Settlement::new(Tag(self.queue.clone(), tag));
        let delivery = Delivery { message, queue: String::new(), returned, settlement };
        // Of two jobs, one is quick.
        worker.window.push(delivery, job % 2 == 1, &self.rules);
    }

    fn begin(&mut self, index: usize) {
        // Keys may come and go all the time, also while slots are waited for.
        let (keys_change, here) = (self.keys_change, Cell::new(false));
        let changing: &dyn Fn(&str, _) -> bool = &|_, _| keys_change && here.replace(!here.get());
        let worker = &mut self.workers[index];
        let Some((delivery, slot)) = worker.window.take(&worker.slots, changing) else { return };
        let Delivery { message, returned, settlement, .. } = delivery;
        let id = message.job_id().unwrap();
        let job = self.by_id[&id];
        let stop = Stop::new(None);
        let Some(running) = worker.table.begin((tenant(), id), &stop, settlement) else {
            assert!(worker.runs.iter().any(|run| run.job == job), "merged into nothing");
            return;
        };
        assert!(worker.runs.iter().all(|run| run.job != job), "the same job runs twice");
        let stage = Stage::Begun;
        let slot = Some(slot);
        let mut run =
            Run { job, stage, is_alone: false, accused: false, blamed: false, running, slot };
        if self.done.contains(&job) {
            (run.stage, run.slot) = (Stage::Marked, None);
            worker.runs.push(run);
            return;
        }
        if self.rules.is_suspicious(returned) {
            assert!(worker.runs.iter().all(|run| run.slot.is_none()), "it does not run alone");
            run.is_alone = true;
            let blame = self.blame.entry(job).or_default();
            run.accused = self.rules.is_poison(returned, *blame);
            *blame += u64::from(BLAME);
            run.blamed = !run.accused;
        }
        let accused = run.accused;
        worker.runs.push(run);
        // A worker that was to call it poison may die before; then it is called so again.
        let again = self.jobs[job].accused;
        self.jobs[job].accused |= accused;
        if accused && !self.jobs[job].poison && !again {
            let blamed = |run: &&Run| run.job == job && run.blamed;
            let elsewhere = self.workers.iter().flat_map(|worker| &worker.runs).filter(blamed);
            let excuses = self.jobs[job].unlucky + elsewhere.count() as u64 * u64::from(BLAME);
            assert!(excuses >= 2 * u64::from(BLAME), "an innocent job is called poison");
        }
        if self.jobs[job].poison && !accused {
            self.jobs[job].killed += 1;
            // It is to blame itself, and nobody else.
            self.die(index);
        }
    }

    /// One step of a job, in the order of the pipeline.
    fn advance(&mut self, index: usize, run: usize) {
        let worker = &mut self.workers[index];
        if worker.runs.is_empty() {
            return;
        }
        let position = run % worker.runs.len();
        let run = &mut worker.runs[position];
        let job = &mut self.jobs[run.job];
        run.stage = match run.stage {
            Stage::Begun => {
                forgive(&mut self.blame, job, run);
                run.slot.take_if(|_| !run.is_alone);
                Stage::Evaluated
            }
            Stage::Evaluated => {
                job.replies += 1;
                job.called_poison |= run.accused;
                Stage::Confirmed
            }
            Stage::Confirmed => {
                if !run.accused {
                    self.done.insert(run.job);
                }
                Stage::Marked
            }
            Stage::Marked => {
                assert!(job.replies > 0, "settled without a confirmed reply");
                let run = worker.runs.remove(position);
                for settlement in run.running.end() {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(settlement.settle(Disposition::Ack)).unwrap();
                }
                return;
            }
        };
    }

    /// The window goes with its connection; what runs goes on.
    fn disconnect(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        for run in &mut worker.runs {
            forgive(&mut self.blame, &mut self.jobs[run.job], run);
        }
        worker.window = Window::default();
        self.queue.lock().unwrap().lose(index, worker.connection);
        worker.connection += 1;
    }

    fn kill(&mut self, index: usize) {
        self.excuse(index);
        self.die(index);
    }

    fn excuse(&mut self, index: usize) {
        for run in self.workers[index].runs.iter().filter(|run| run.blamed) {
            self.jobs[run.job].unlucky += u64::from(BLAME);
        }
    }

    fn die(&mut self, index: usize) {
        let connection = self.workers[index].connection;
        self.queue.lock().unwrap().lose(index, connection);
        self.workers[index] = Worker::new(connection + 1);
    }

    /// No job is settled at the broker before its reply is confirmed.
    fn check(&self) {
        let queue = self.queue.lock().unwrap();
        let mut there: HashSet<usize> = queue.waiting.iter().map(|(job, _)| *job).collect();
        there.extend(queue.unsettled.values().map(|(job, _)| *job));
        for (index, job) in self.jobs.iter().enumerate() {
            assert!(there.contains(&index) || job.replies > 0, "a job is lost");
        }
    }

    /// Lets everything come to rest, with nothing going wrong any more but what poison does.
    fn rest(&mut self) {
        self.keys_change = false;
        for step in 0..MOST_STEPS {
            let index = step % WORKERS;
            self.deliver(index);
            self.begin(index);
            self.advance(index, step / WORKERS);
            self.check();
            // A worker may still run a copy that was answered elsewhere since it was cut off.
            let idle = self.workers.iter().all(|worker| worker.runs.is_empty());
            let queue = self.queue.lock().unwrap();
            if idle && queue.waiting.is_empty() && queue.unsettled.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}
