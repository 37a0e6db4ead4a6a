//! The next chunk of a job is fetched while the present one is evaluated, and no byte is used out
//! of its order.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cipherscore_common::broker::MemoryBroker;
use cipherscore_common::{
    Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES, EvaluationKeyId, JobId, Lease,
    MarkStore, Marks, MemoryStore, Presence, PresenceStore, Progress, Put, ReleaseStore,
    StoreError, Tenant,
};
use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_ids::{KeysetId, ModelId};
use tokio::sync::watch;

use crate::support::{PATIENCE, Tester, open_worker};

const CHUNKS: u64 = 4;

/// A store that counts the chunks that are asked for, and does not answer about a job while it is held.
#[derive(Clone, Default)]
pub(crate) struct Counting {
    store: MemoryStore,
    asked: Arc<AtomicU64>,
    pub(crate) held: Arc<watch::Sender<Option<JobId>>>,
}

mod contract {
    use cipherscore_common::store_contract;

    use super::Counting;

    async fn counting() -> (Counting, ()) {
        (Counting::default(), ())
    }

    store_contract!(counting, tokio::test);
}

impl BlobStore for Counting {
    async fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> Result<Put, StoreError> {
        self.store.put(blob, lease, progress).await
    }

    async fn info(&self, name: &BlobName) -> Result<BlobInfo, StoreError> {
        self.store.info(name).await
    }

    async fn chunk(&self, info: &BlobInfo, index: u64) -> Result<Vec<u8>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.store.chunk(info, index).await
    }

    async fn touch(&self, name: &BlobName, lease: Option<Lease>) -> Result<(), StoreError> {
        self.store.touch(name, lease).await
    }

    async fn remove(&self, name: &BlobName) -> Result<(), StoreError> {
        self.store.remove(name).await
    }

    async fn list(&self, tenant: &Tenant, kind: BlobKind) -> Result<Vec<BlobInfo>, StoreError> {
        self.store.list(tenant, kind).await
    }
}

impl MarkStore for Counting {
    async fn marks(&self, tenant: &Tenant, job: JobId) -> Result<Marks, StoreError> {
        self.held.subscribe().wait_for(|held| *held != Some(job)).await.unwrap();
        self.store.marks(tenant, job).await
    }

    async fn mark_done(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.store.mark_done(tenant, job).await
    }

    async fn mark_cancelled(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.store.mark_cancelled(tenant, job).await
    }

    async fn cancelled(&self, jobs: &[(Tenant, JobId)]) -> Result<Vec<bool>, StoreError> {
        self.store.cancelled(jobs).await
    }

    async fn blame(&self, tenant: &Tenant, job: JobId, more: u32) -> Result<u64, StoreError> {
        self.store.blame(tenant, job, more).await
    }

    async fn forgive(&self, tenant: &Tenant, job: JobId, less: u32) -> Result<(), StoreError> {
        self.store.forgive(tenant, job, less).await
    }
}

impl ReleaseStore for Counting {
    async fn count_released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
        coefficients: u64,
    ) -> Result<u64, StoreError> {
        self.store.count_released(tenant, key, coefficients).await
    }

    async fn released(&self, tenant: &Tenant, key: EvaluationKeyId) -> Result<u64, StoreError> {
        self.store.released(tenant, key).await
    }
}

impl PresenceStore for Counting {
    async fn announce(&self, presence: &Presence) -> Result<(), StoreError> {
        self.store.announce(presence).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.store.leave(worker).await
    }

    async fn workers(&self) -> Result<Vec<Presence>, StoreError> {
        self.store.workers().await
    }
}

/// Says the first byte of every chunk, and waits at each for the next one to be fetched.
struct Patient {
    asked: Arc<AtomicU64>,
    seen: Vec<u8>,
}

impl Evaluator for Patient {
    fn requirements(&self) -> Requirements {
        Requirements {
            model_id: ModelId::of(b"patient"),
            keyset_id: KeysetId::of(b"none"),
            needs_key: false,
            max_key_bytes: 0,
            prepared_key_bytes: 0,
            is_quick: true,
        }
    }

    fn footprint(&self, _rows: u32) -> JobFootprint {
        JobFootprint {
            memory_bytes: CHUNK_BYTES,
            max_input_bytes: CHUNKS * CHUNK_BYTES as u64,
            planned: None,
        }
    }

    fn prepare(&self, _serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        Err(EvaluationError::NotConformant("there are no keys".into()))
    }

    fn start(
        self: Arc<Self>,
        _key: Option<&PreparedKey>,
        _rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        Ok(Box::new(Self { asked: Arc::clone(&self.asked), seen: Vec::new() }))
    }
}

impl Evaluation for Patient {
    fn push(&mut self, chunk: &[u8], _stop: Stop<'_>) -> Result<(), EvaluationError> {
        self.seen.push(chunk[0]);
        let (wanted, started) = ((self.seen.len() as u64 + 1).min(CHUNKS), Instant::now());
        while self.asked.load(Ordering::SeqCst) < wanted {
            if started.elapsed() > PATIENCE / 6 {
                return Err(EvaluationError::Shape("the next chunk is not fetched".into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // One is on its way, and no further one.
        match self.asked.load(Ordering::SeqCst) == wanted {
            true => Ok(()),
            false => Err(EvaluationError::Shape("too many chunks are fetched".into())),
        }
    }

    fn finish(self: Box<Self>, _stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        Ok(self.seen)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_chunk_is_fetched_while_one_is_evaluated() {
    let (broker, store) = (MemoryBroker::default(), Counting::default());
    let mut tester = Tester::new(broker.clone(), store.clone(), "ann").await;
    let mut worker = open_worker(&broker, store.clone(), |_| ()).await;
    let patient = Patient { asked: Arc::clone(&store.asked), seen: Vec::new() };
    let model_id = worker.add_model(Arc::new(patient));
    let worker = worker.start().await.unwrap();
    let bytes = (0..CHUNKS).flat_map(|chunk| vec![chunk.to_le_bytes()[0]; CHUNK_BYTES]).collect();
    let mut job = tester.keyless_job(model_id, bytes);
    tester.store_payload(&mut job).await;
    tester.publish(&job).await;
    let reply = tester.reply().await;
    assert_eq!(tester.outputs(&reply).await, [0, 1, 2, 3]);
    assert_eq!(store.asked.load(Ordering::SeqCst), CHUNKS);
    drop(worker);
}
