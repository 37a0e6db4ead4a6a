//! An upload to its reply, as a worker does it.

use std::sync::Arc;

use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};

/// Bytes of an upload that arrive at a time, as they do from the store.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) fn evaluate(
    evaluator: &Arc<BulkEvaluator>,
    key: Option<&Arc<PreparedKey>>,
    rows: usize,
    upload: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let mut job = Arc::clone(evaluator).begin(key.cloned(), u32::try_from(rows)?)?;
    for chunk in upload.chunks(CHUNK_BYTES) {
        job.push(chunk, &|| false)?;
    }
    Ok(job.finish(&|| false)?)
}
