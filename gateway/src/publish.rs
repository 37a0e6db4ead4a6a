//! The way of a job into its queue: rows to the store or into the message, a note, the broker's confirm.

use std::sync::Arc;

use cipherscore_common::broker::{Broker, BrokerError};
use cipherscore_common::message::{Job, MAX_BODY_BYTES, MAX_INLINE_BYTES, Message, Payload};
use cipherscore_common::telemetry::trace;
use cipherscore_common::{
    BlobKind, BlobWriter, Digest, GatewayStore, JobState, Lease, NoteName, Tenant,
};
use tracing::{Instrument as _, debug};

use crate::limits::Gate;
use crate::note::JobNote;
use crate::order::{BodyForm, Order};
use crate::problem::{Problem, ProblemCode};
use crate::receive::Incoming;
use crate::shared::Shared;

/// What became of a job that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The broker has confirmed it.
    Published,
    /// It was accepted before.
    Known,
}

/// Where the body comes from, and whose it is.
pub(crate) struct Sent {
    pub(crate) tenant: Tenant,
    pub(crate) gate: Arc<Gate>,
    pub(crate) body: Incoming,
}

/// Rows that were received.
struct Rows {
    payload: Payload,
    sha256: Digest,
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Accepts a job: it is with the broker when this returns. It may be sent again whatever this says.
    pub(crate) async fn publish(&self, order: &Order, sent: Sent) -> Result<Accepted, Problem> {
        let Sent { tenant, gate, body } = sent;
        let state = self.store.job_state(&tenant, order.id).await?;
        refuse_settled(&state)?;
        // A reply says that the broker had it, whatever was noted.
        let before = JobNote::of(&state).filter(|note| note.accepted || state.ended);
        if before.is_none() {
            self.wait_for_reply_queue(&tenant).await?;
        }
        let (job, sha256) = {
            let _turn = self.limits.transfer(&gate).await?;
            self.receive(order, &tenant, &gate, body, before.is_some()).await?
        };
        let note = JobNote::new(&job, order.client.as_deref(), sha256);
        if let Some(before) = before {
            // Its rows were not stored once more.
            return known(&before, &note);
        }
        let lease = self.result_lease(&tenant);
        let name = NoteName::Job(order.id);
        let there = self.store.note(&tenant, name, &note.to_json(), lease).await?;
        let there = JobNote::parse(&there).unwrap_or_else(|| note.clone());
        if !there.is_same(&note) || (there.accepted && !there.is_own(&note)) {
            self.let_rows_go(&tenant, &note, &there).await;
            return known(&there, &note);
        }
        let message = order.message(job);
        self.send(message, &there).await.inspect_err(|error| {
            debug!(job = %order.id, code = ?error.code(), "not accepted");
        })?;
        let accepted = note.accepted_now();
        // It is with the broker. Where the note is not changed, the same again is published again.
        if let Err(error) = self.store.note_again(&tenant, name, &accepted.to_json(), lease).await {
            debug!(job = %order.id, reason = %error, "not noted as accepted");
        }
        self.metrics.job_accepted();
        debug!(job = %order.id, model = %accepted.model_id, %tenant, "job accepted");
        Ok(Accepted::Published)
    }

    async fn receive(
        &self,
        order: &Order,
        tenant: &Tenant,
        gate: &Gate,
        body: Incoming,
        is_known: bool,
    ) -> Result<(Job, Digest), Problem> {
        if order.form == BodyForm::Protocol {
            let body = body.all().await?;
            require_digest(order.sha256, Digest::of(&body))?;
            let job = order.job_of_body(body)?;
            let sha256 = match &job.payload {
                Payload::Inline(bytes) => Digest::of(bytes),
                Payload::Stored(stored) => stored.sha256,
            };
            return Ok((job, sha256));
        }
        let lease = self.result_lease(tenant);
        let rows = match is_known {
            true => digest_of(order, body).await?,
            false => self.take_rows(order, tenant, gate, body, lease).await?,
        };
        Ok((order.job(rows.payload)?, rows.sha256))
    }

    /// Few rows stay in memory, many go to the store while they arrive.
    async fn take_rows(
        &self,
        order: &Order,
        tenant: &Tenant,
        gate: &Gate,
        mut body: Incoming,
        lease: Lease,
    ) -> Result<Rows, Problem> {
        let mut few = Vec::new();
        while let Some(piece) = body.next().await? {
            if few.len() + piece.len() > MAX_INLINE_BYTES {
                let mut writer = BlobWriter::new(&self.store, tenant, BlobKind::Job);
                let taken = take_many(&mut writer, gate, [&few[..], &piece[..]], body).await;
                let taken = taken.and_then(|()| require_digest(order.sha256, writer.digest()));
                if let Err(problem) = taken {
                    // What is left of it goes by itself.
                    let _ = writer.give_up().await;
                    return Err(problem);
                }
                let written = writer.finish(Some(lease)).await?;
                let sha256 = written.stored.sha256;
                return Ok(Rows { payload: Payload::Stored(written.stored), sha256 });
            }
            few.extend_from_slice(&piece);
        }
        let sha256 = Digest::of(&few);
        require_digest(order.sha256, sha256)?;
        Ok(Rows { payload: Payload::Inline(few), sha256 })
    }

    /// Publishes, and waits for the confirm.
    async fn send(&self, mut message: Message, noted: &JobNote) -> Result<(), Problem> {
        // Follows whoever asked over HTTP.
        let span = trace::receive(&message).in_scope(|| trace::send(&message));
        trace::carry(&span, &mut message);
        let began = std::time::Instant::now();
        let published = self.broker.publish(&message).instrument(span).await;
        self.metrics.confirmed(began.elapsed(), &published);
        let Err(error) = published else { return Ok(()) };
        let id = message.job_id().zip(message.reply_queue());
        if let (BrokerError::Unroutable { .. }, Some((job, queue))) = (&error, id) {
            // No queue takes it. Another gateway may have accepted it since, or be about to: then its note and
            // its rows stay. Otherwise rows go with their lease, and the same again has them.
            let tenant = queue.tenant();
            let note = self.store.noted(tenant, NoteName::Job(job)).await;
            let note = note.ok().flatten().and_then(|note| JobNote::parse(&note));
            if note.is_some_and(|note| !note.accepted && note.is_own(noted)) {
                let _ = self.store.forget_note(tenant, NoteName::Job(job)).await;
            }
        }
        Err(error.into())
    }

    /// Of a job that is another one's: nobody needs its rows, unless they are the same.
    async fn let_rows_go(&self, tenant: &Tenant, note: &JobNote, there: &JobNote) {
        if let Some(payload) = note.payload.filter(|_| note.payload != there.payload) {
            self.remove(tenant, BlobKind::Job, payload).await;
        }
    }
}

fn refuse_settled(state: &JobState) -> Result<(), Problem> {
    match state.settled {
        false => Ok(()),
        true => Err(Problem::new(ProblemCode::JobSettled, "the job is over, and was let go")),
    }
}

fn known(before: &JobNote, now: &JobNote) -> Result<Accepted, Problem> {
    match before.is_same(now) {
        true => Ok(Accepted::Known),
        false => Err(Problem::new(
            ProblemCode::JobConflict,
            "a job of this id was accepted with other bytes, or for another model, key or client",
        )),
    }
}

pub(crate) fn require_digest(said: Option<Digest>, found: Digest) -> Result<(), Problem> {
    match said {
        Some(said) if said != found => {
            let detail = format!("the body has the SHA-256 {found}");
            Err(Problem::new(ProblemCode::WrongDigest, detail))
        }
        _ => Ok(()),
    }
}

/// Sends pieces to the store, and what follows them.
pub(crate) async fn take_many<S: GatewayStore>(
    writer: &mut BlobWriter<'_, S>,
    gate: &Gate,
    pieces: impl IntoIterator<Item = &[u8]>,
    mut body: Incoming,
) -> Result<(), Problem> {
    for piece in pieces {
        gate.send(piece.len() as u64)?;
        writer.push(piece).await?;
    }
    while let Some(piece) = body.next().await? {
        gate.send(piece.len() as u64)?;
        writer.push(&piece).await?;
    }
    Ok(())
}

/// Rows that are in the store, or at the broker, already.
async fn digest_of(order: &Order, mut body: Incoming) -> Result<Rows, Problem> {
    let mut hasher = cipherscore_common::Hasher::default();
    while let Some(piece) = body.next().await? {
        hasher.update(&piece);
    }
    let sha256 = hasher.finish();
    require_digest(order.sha256, sha256)?;
    Ok(Rows { payload: Payload::Inline(Vec::new()), sha256 })
}

/// Largest body of a request, for its form.
pub(crate) fn body_limit(form: BodyForm, gate: &Gate) -> u64 {
    match form {
        BodyForm::Payload => gate.limits.max_job_size.as_u64(),
        BodyForm::Protocol => MAX_BODY_BYTES as u64,
    }
}
