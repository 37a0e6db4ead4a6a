//! The one bridge from waiting to computing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cipherscore_common::message::{ErrorCode, Refusal};
use tokio::sync::oneshot;
use tracing::{Span, error};

use crate::failure::Failure;
use crate::slots::Pool;

/// Computes on the pool while this task waits. A panic becomes the failure of this one job.
pub(crate) async fn compute<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = oneshot::channel();
    let span = Span::current();
    let progress = pool.progress.clone();
    pool.threads.spawn(move || {
        let _running = progress.begin();
        // What the closure holds is dropped with it: nobody sees it half changed.
        let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
        // The receiver is gone when the worker stops before the job is done.
        let _ = sender.send(result);
    });
    match receiver.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => {
            error!(panic = text(&*panic), "evaluation panicked");
            let reason = "evaluation panicked; the worker's log says where";
            Err(Failure::Broken(Refusal::new(ErrorCode::Internal, reason)))
        }
        Err(_) => Err(Failure::Abandoned),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without text")
}
