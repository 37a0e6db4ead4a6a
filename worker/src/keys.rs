//! Step 4: the evaluation key of a job, prepared once for all jobs that need it.

use std::sync::Arc;
use std::time::Instant;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, Refusal};
use cipherscore_common::telemetry::trace;
use cipherscore_common::{BlobName, BlobReader, EvaluationKeyId, Store, StoreError, Tenant};
use cipherscore_engine::evaluator::PreparedKey;
use tracing::{Instrument, info};

use crate::compute::compute;
use crate::evaluation::{Work, classify};
use crate::failure::Failure;
use crate::memory::Admission;
use crate::shared::Shared;

/// The key of an admitted job, from the cache or from the store; none for a linear circuit. Jobs
/// that need the same key at the same time wait for one fetch.
pub(crate) async fn fetch_key<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    admission: &Admission,
) -> Result<Option<Arc<PreparedKey>>, Failure> {
    let job = work.job;
    let (Some(cell), Some(id)) = (admission.key(), job.key_id) else { return Ok(None) };
    let key = cell.get_or_try_init(|| prepare(shared, work, id)).await?;
    job.require_owner(key)?;
    Ok(Some(key.clone()))
}

async fn prepare<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    id: EvaluationKeyId,
) -> Result<Arc<PreparedKey>, Failure> {
    let (job, evaluator) = (work.job, work.job.form.evaluator.clone());
    let limit = evaluator.requirements().max_key_bytes as u64;
    shared.count_key_fetch();
    let started = Instant::now();
    let fetching = fetch(shared, &job.tenant, id, limit);
    let serialised = fetching.instrument(trace::step("fetch key")).await?;
    let fetch = started.elapsed();
    let serialised_bytes = serialised.len();
    let started = Instant::now();
    let pool = shared.pools.of(work.slot);
    let preparing = compute(pool, move || evaluator.prepare(serialised));
    let prepared = preparing.instrument(trace::step("prepare key")).await?;
    let prepared = prepared.map_err(|error| classify(error, ErrorCode::NotConformant))?;
    shared.metrics.key_fetched(fetch, started.elapsed());
    info!(
        key = %id,
        serialised_bytes,
        prepared_bytes = prepared.bytes(),
        fetch_seconds = fetch.as_secs_f64(),
        prepare_seconds = started.elapsed().as_secs_f64(),
        "evaluation key fetched and prepared"
    );
    Ok(Arc::new(prepared))
}

/// The bytes of a key, which have the digest that its id says.
async fn fetch<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    tenant: &Tenant,
    id: EvaluationKeyId,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    let name = BlobName::evaluation_key(tenant, id);
    let refused = |code, error: &dyn ToString| Failure::refused(code, error.to_string());
    let read = async {
        let reader = BlobReader::open(&shared.store, &name).await?;
        let found = reader.info().sha256;
        match found == id.digest() {
            true => reader.read_all(limit).await.map(Ok),
            false => Ok(Err(format!("{name} is another key there, of digest {found}"))),
        }
    };
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(other)) => Err(refused(ErrorCode::WrongDigest, &other)),
        Err(error @ StoreError::NotFound { .. }) => Err(refused(ErrorCode::KeyMissing, &error)),
        Err(error @ StoreError::Damaged { .. }) => Err(refused(ErrorCode::WrongDigest, &error)),
        Err(error @ StoreError::TooLarge { .. }) => Err(refused(ErrorCode::NotConformant, &error)),
        Err(error @ StoreError::UnknownVersion { .. }) => {
            Err(Failure::Refused(Refusal::new(ErrorCode::UnsupportedVersion, error.to_string())))
        }
        // Its tenant can put anything under the name.
        Err(error @ StoreError::Unexpected { .. }) => Err(refused(ErrorCode::KeyMissing, &error)),
        Err(error) => Err(shared.store_failure(&error)),
    }
}
