//! The journal of who keeps nothing: a call that ends early is made again, as a whole.

use std::marker::PhantomData;

use cipherscore_common::{Digest, JobId};

use super::StreamError;
use crate::driver::{Cause, Failure, Heard, Journal, NewJob, NoResults, Ticket};

pub(super) struct Unkept<T>(PhantomData<fn() -> T>);

impl<T> Unkept<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Send + 'static> Journal for Unkept<T> {
    type Results = T;
    type End = Result<T, (Failure, Cause)>;
    type Error = StreamError;

    const OUTLIVES: bool = false;

    async fn begin(&self, new: NewJob) -> Result<Option<Ticket>, StreamError> {
        Ok(Some(new.ticket))
    }

    async fn published(&self, _job: JobId, _payload: Option<Digest>) -> Result<(), StreamError> {
        Ok(())
    }

    async fn end(&self, heard: Heard, end: Result<T, NoResults>) -> Result<Self::End, StreamError> {
        Ok(end.map_err(|none| (Failure { job: heard.job, reason: none.reason }, none.cause)))
    }
}
