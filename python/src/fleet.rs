//! Rows through the queue, call after call.
//!
//! One async runtime serves all fleets of the process. A call runs there and hands its results to a
//! function of Python, in a thread that may wait for the interpreter's lock.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cipherscore_common::{EvaluationKeyId, ModelId};
use cipherscore_concrete::framing::{frame_values, split_values};
use cipherscore_producer::evaluation_keys::KeySource;
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::fleet::{FleetBroker, FleetStore};
use cipherscore_producer::stream::{Stream, StreamError, Target};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::arrays::AnyRows;
use crate::client::{Client, in_form, parse_form, scores};
use crate::failure::{Class, Failure};
use crate::services::{self, FleetOptions};
use crate::{arrays, work};

/// Threads that wait for the network. What computes has threads of its own.
const NETWORK_THREADS: usize = 2;
/// Things that happened and that nobody asked for; older ones go.
const MAX_SAID: usize = 100;
/// How long gateway, broker and store may take to answer when a fleet is made.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

type Connections = Stream<FleetBroker, FleetStore>;

/// Connections to broker and store, or to a gateway.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct Fleet {
    /// None when it is closed.
    stream: Mutex<Option<Arc<Connections>>>,
    said: Said,
}

/// A serialised evaluation key that another program made, and its digest.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct EvaluationKey {
    id: EvaluationKeyId,
    bytes: Arc<Vec<u8>>,
}

#[pymethods]
impl EvaluationKey {
    #[new]
    fn new(py: Python<'_>, serialised: PyBackedBytes) -> PyResult<Self> {
        work::run(py, move |_| {
            let bytes = Arc::new(serialised.to_vec());
            Ok(Self { id: EvaluationKeyId::of(&bytes), bytes })
        })
    }
}

impl EvaluationKey {
    fn source(&self) -> (EvaluationKeyId, KeySource) {
        (self.id, KeySource::Bytes(Arc::clone(&self.bytes)))
    }
}

/// Sentences for the log.
type Said = Arc<Mutex<VecDeque<String>>>;

/// A call that is under way.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct Call {
    rows: Arc<AtomicU64>,
    task: AbortHandle,
}

#[pymethods]
impl Call {
    /// Takes the call back: its function is not called any more, and workers leave its jobs.
    fn cancel(&self) {
        self.task.abort();
    }

    /// Rows that have results.
    #[getter]
    fn rows_done(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl Fleet {
    #[new]
    fn new(py: Python<'_>, options: FleetOptions) -> PyResult<Self> {
        work::run(py, move |_| {
            let mut settings = options.settings()?;
            let said = Said::default();
            let log = Arc::clone(&said);
            let events = Events::new(move |event| say(&log, event));
            let open = async {
                let fleet = services::open(&mut settings).await?;
                let opened = Stream::open(fleet.broker, fleet.store, settings.producer, events);
                Ok::<_, Failure>(opened.await?)
            };
            let opened =
                runtime()?.block_on(async { tokio::time::timeout(OPEN_TIMEOUT, open).await });
            let stream = opened.map_err(|_| {
                let time = OPEN_TIMEOUT.as_secs();
                Failure::new(Class::Fleet, format!("the fleet does not answer within {time} s"))
            })??;
            Ok(Self { stream: Mutex::new(Some(Arc::new(stream))), said })
        })
    }

    /// Scores rows, by jobs of so many, if that is given, and in such a form. `done` is called once, with an array of scores or with an exception.
    #[pyo3(signature = (client, model_id, rows, jobs, done))]
    fn score(
        &self,
        py: Python<'_>,
        client: &Client,
        model_id: &str,
        rows: AnyRows<'_>,
        jobs: (Option<NonZeroU32>, String),
        done: Py<PyAny>,
    ) -> PyResult<Call> {
        let raised = |failure: Failure| failure.into_exception(py);
        let stream = self.stream().map_err(raised)?;
        let model_id = parse_model(model_id).map_err(raised)?;
        let (rows_per_job, form) = jobs;
        let choice = parse_form(&form).map_err(raised)?;
        let (rows, keys) = (rows.of(client.model()).map_err(raised)?, client.keys());
        self.start(done, move |scored| async move {
            let keys = blocking(keys).await??;
            let encryption = in_form(Arc::clone(&keys.encryption), choice, rows.len())?;
            let form = encryption.model().form();
            let key = keys.evaluation(form);
            let key = key.filter(|_| encryption.model().interface().needs_key);
            let target = Target { model_id, form, key };
            let integers = stream.score(&target, &encryption, rows, rows_per_job, &scored).await?;
            let scores = blocking(move || scores(encryption.model(), &integers)).await?;
            scores.map(Answer::Scores).map_err(Failure::as_class(Class::Rows))
        })
    }

    /// Has values evaluated that another program encrypted, one a row. `done` is called once, with a
    /// list of values or with an exception.
    fn evaluate(
        &self,
        py: Python<'_>,
        model_id: &str,
        evaluation_key: Option<&EvaluationKey>,
        values: Vec<PyBackedBytes>,
        rows_per_job: NonZeroU32,
        done: Py<PyAny>,
    ) -> PyResult<Call> {
        let raised = |failure: Failure| failure.into_exception(py);
        let stream = self.stream().map_err(raised)?;
        let model_id = parse_model(model_id).map_err(raised)?;
        let chunk = usize::try_from(rows_per_job.get())?;
        let key = evaluation_key.map(EvaluationKey::source);
        self.start(done, move |scored| async move {
            let prepare = move || {
                let framed = |rows: &[PyBackedBytes]| {
                    (u32::try_from(rows.len()).unwrap_or(u32::MAX), frame_values(rows))
                };
                values.chunks(chunk).map(framed).collect::<Vec<_>>()
            };
            let payloads = blocking(prepare).await?;
            let target = Target { model_id, form: None, key };
            let outputs = stream.evaluate(&target, payloads, &scored).await?;
            let mut values = Vec::new();
            for output in &outputs {
                let split = split_values(output).map_err(Failure::as_class(Class::Rows))?;
                values.extend(split.into_iter().map(<[u8]>::to_vec));
            }
            Ok(Answer::Values(values))
        })
    }

    /// What happened since this was asked last, as sentences for a log.
    fn said(&self) -> Vec<String> {
        self.said.lock().drain(..).collect()
    }

    /// Ends the connections, as soon as the calls under way are over.
    fn close(&self, py: Python<'_>) {
        let stream = self.stream.lock().take();
        py.detach(|| {
            // Tasks are ended where a runtime is.
            let _runtime = runtime().ok().map(Runtime::enter);
            drop(stream);
        });
    }
}

/// What comes of a call.
enum Answer {
    Scores(cipherscore_producer::matrix::Matrix<f64>),
    Values(Vec<Vec<u8>>),
}

impl Fleet {
    fn stream(&self) -> Result<Arc<Connections>, Failure> {
        let stream = self.stream.lock().clone();
        stream.ok_or_else(|| Failure::new(Class::Fleet, "this fleet is closed"))
    }

    fn start<F>(&self, done: Py<PyAny>, call: impl FnOnce(Events) -> F) -> PyResult<Call>
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        let rows = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rows);
        let answer = call(Events::new(move |event| {
            if let Event::Scored { rows } = event {
                counted.fetch_add(rows, Ordering::Relaxed);
            }
        }));
        let runtime =
            runtime().map_err(|failure| Python::attach(|py| failure.into_exception(py)))?;
        let task = runtime.spawn(async move {
            let answer = answer.await;
            // Beside the network's threads: it waits for the interpreter's lock.
            drop(tokio::task::spawn_blocking(move || deliver(&done, answer)));
        });
        Ok(Call { rows, task: task.abort_handle() })
    }
}

/// Calls the function with what came of a call. At the end of the interpreter nobody waits for it.
fn deliver(done: &Py<PyAny>, answer: Result<Answer, Failure>) {
    Python::try_attach(|py| {
        let arguments = match answer {
            Ok(answer) => answer.into_python(py).map(|result| (Some(result), None)),
            Err(failure) => Ok((None, Some(failure.into_exception(py)))),
        };
        let (result, error) = arguments.unwrap_or_else(|error| (None, Some(error)));
        if let Err(error) = done.call1(py, (result, error)) {
            // There is no caller to raise it in.
            error.write_unraisable(py, None);
        }
    });
}

impl Answer {
    fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self {
            Self::Scores(scores) => arrays::array(py, &scores)?.into_any().unbind(),
            Self::Values(values) => {
                let values = values.iter().map(|value| PyBytes::new(py, value));
                values.collect::<Vec<_>>().into_pyobject(py)?.into_any().unbind()
            }
        })
    }
}

fn parse_model(id: &str) -> Result<ModelId, Failure> {
    id.parse().map_err(Failure::as_class(Class::Artifact))
}

/// Runs what computes, or waits for a disk, beside the network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StreamError::Stopped(error).into())
}

/// One for the process. It is never ended: what runs at the end of the process ends with it.
fn runtime() -> Result<&'static Runtime, Failure> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_name("cipherscore-net")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Class::Fleet, format!("no async runtime: {error}")))?;
    // Another thread may have been faster.
    Ok(RUNTIME.get_or_init(|| made))
}

fn say(said: &Said, event: Event) {
    let sentence = match event {
        Event::Waiting { reason, .. } => format!("waiting: {reason}"),
        Event::GoesOn => "it goes on".to_owned(),
        Event::PublishedAgain { reason } => format!("published again: {reason}"),
        Event::ReplyMalformed { reason } => format!("a reply was refused: {reason}"),
        _ => return,
    };
    let mut said = said.lock();
    if said.len() == MAX_SAID {
        said.pop_front();
    }
    said.push_back(sentence);
}
