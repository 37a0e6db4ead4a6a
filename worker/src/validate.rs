//! Step 3: whether a job may be done and can be. Pure: no service is asked.

use std::time::Duration;

use cipherscore_common::message::{
    ErrorCode, Job, Message, Outcome, Payload, ProtocolVersion, Refusal, Reply, Timestamp, Timings,
    TraceParent, headers,
};
use cipherscore_common::telemetry::trace::trace_state;
use cipherscore_common::topology::{ReplyQueue, job_queue};
use cipherscore_common::{EvaluationKeyId, FormName, JobId, ModelId, OwnerId, Tenant};
use cipherscore_engine::evaluator::PreparedKey;
use serde::{Deserialize, Serialize};

use crate::evaluation::classify;
use crate::failure::Failure;
use crate::forms::{ModelForm, ModelForms};
use crate::in_flight::Name;
use crate::memory::{Demand, KeyDemand, KeyName};
use crate::models::Models;

/// How often a job of a model that went away is put off: some 36 seconds in all.
const ATTEMPTS_WITHOUT_MODEL: u32 = 3;
/// From how many returns on a delivery runs alone: if it kills its worker, no other job is to blame.
const SUSPICIOUS_RETURNS: u32 = 2;

/// What a job that is begun alone is blamed with, until it is known that its worker did not die of
/// the evaluation.
pub(crate) const BLAME: u32 = 8;
/// What is taken back then. The rest stays: were a job's reply what ends workers, that would show
/// too, though later.
pub(crate) const FORGIVEN: u32 = 7;

/// Who says whose a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tenants {
    /// The job itself: everybody who may publish is trusted.
    #[default]
    Single,
    /// The broker, which compares the user id of a message with the user of its connection.
    ByUser,
}

/// What jobs may ask for.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Who says whose a job is.
    pub(crate) tenants: Tenants,
    /// Users of the broker that are workers: they may say for whom they put a job off.
    pub(crate) worker_users: Vec<String>,
    /// Users of the broker that are gateways: they may say whose a job is.
    pub(crate) gateway_users: Vec<String>,
    /// Most rows of a job.
    pub(crate) max_job_rows: u32,
    /// Most bytes of a job's rows.
    pub(crate) max_job_bytes: u64,
    /// How often a job may come back before it counts as what kills the workers.
    pub(crate) max_returns: u32,
}

impl Rules {
    /// Whether this user of the broker is a worker.
    pub(crate) fn is_worker(&self, user: &str) -> bool {
        self.worker_users.iter().any(|name| name == user)
    }

    /// Whether a job that came back so often runs alone, and is counted.
    pub(crate) fn is_suspicious(&self, returned: u32) -> bool {
        returned >= SUSPICIOUS_RETURNS
    }

    /// Whether it is the job that ends the workers. That it came back often says little: whoever
    /// dies takes along whatever else it held. What counts is the blame of the times that it was
    /// begun alone before; what the store has lost begins anew.
    pub(crate) fn is_poison(&self, returned: u32, blame_before: u64) -> bool {
        let runs_alone = self.max_returns.saturating_sub(SUSPICIOUS_RETURNS).saturating_add(1);
        returned > self.max_returns && blame_before >= u64::from(runs_alone) * u64::from(BLAME)
    }

    /// How often a delivery came back in all. What a worker counted before is believed from
    /// workers only, where the broker says who published.
    pub(crate) fn returned(&self, message: &Message, returned: u32) -> u32 {
        let by_worker = message.user_id.as_deref().is_some_and(|user| self.is_worker(user));
        match self.tenants == Tenants::Single || by_worker {
            true => returned.saturating_add(message.returned_before()),
            false => returned,
        }
    }
}

/// A job that may be done, and the model that does it.
pub(crate) struct ValidJob {
    pub(crate) id: JobId,
    pub(crate) tenant: Tenant,
    pub(crate) key_id: Option<EvaluationKeyId>,
    pub(crate) rows: u32,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) payload: Payload,
    /// How often it came back from workers.
    pub(crate) returned: u32,
    /// What evaluates it.
    pub(crate) form: ModelForm,
    address: Address,
}

/// Who is answered, and as what.
pub(crate) struct Address {
    pub(crate) reply_to: ReplyQueue,
    pub(crate) job: JobId,
    /// In which the job is written, and so the reply.
    version: ProtocolVersion,
    owner_id: Option<OwnerId>,
    correlation_id: Option<String>,
    model_id: Option<ModelId>,
    trace: Option<TraceParent>,
    trace_state: Option<String>,
}

impl Address {
    /// The tenant that is answered.
    pub(crate) fn tenant(&self) -> &Tenant {
        self.reply_to.tenant()
    }

    /// The model that the job names, loaded here or not.
    pub(crate) fn model_id(&self) -> Option<ModelId> {
        self.model_id
    }

    /// The reply.
    pub(crate) fn reply(&self, worker: &str, timings: Timings, outcome: Outcome) -> Reply {
        Reply {
            version: self.version,
            job: self.job,
            correlation_id: self.correlation_id.clone(),
            model_id: self.model_id,
            owner_id: self.owner_id.filter(|_| matches!(outcome, Outcome::Scored(_))),
            manifest_id: None,
            worker: worker.to_owned(),
            timings,
            trace: self.trace,
            outcome,
        }
    }

    /// The message of a reply.
    pub(crate) fn message(&self, reply: &Reply) -> Message {
        let mut message = reply.to_message(&self.reply_to);
        if let Some(state) = &self.trace_state {
            message.set(headers::TRACE_STATE, state.as_str());
        }
        message
    }
}

impl ValidJob {
    /// As it is called among those that run.
    pub(crate) fn name(&self) -> Name {
        (self.tenant.clone(), self.id)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn model_id(&self) -> Option<ModelId> {
        self.address.model_id
    }

    pub(crate) fn trace_id(&self) -> Option<String> {
        self.address.trace.map(|trace| trace.trace_id())
    }

    /// Refuses a key of another data owner than the rows. A job of version 1 does not say whose its
    /// rows are.
    pub(crate) fn require_owner(&self, key: &PreparedKey) -> Result<(), Failure> {
        match self.address.version {
            ProtocolVersion::V1 => Ok(()),
            ProtocolVersion::V2 => {
                let required = key.require_owner(self.address.owner_id);
                required.map_err(|error| classify(error, ErrorCode::NotConformant))
            }
        }
    }

    /// The memory that it takes.
    pub(crate) fn demand(&self) -> Result<Demand, Failure> {
        let requirements = self.form.evaluator.requirements();
        let key = match (requirements.needs_key, self.key_id) {
            (false, _) => None,
            (true, None) => {
                return Err(Failure::refused(
                    ErrorCode::KeyMissing,
                    "this model needs an evaluation key, and the job names none (cs-key-id)",
                ));
            }
            (true, Some(id)) => Some(KeyDemand {
                name: KeyName { tenant: self.tenant.clone(), id, keyset: requirements.keyset_id },
                prepared_bytes: requirements.prepared_key_bytes as u64,
                serialised_bytes: requirements.max_key_bytes as u64,
            }),
        };
        let job_bytes = self.form.evaluator.footprint(self.rows).memory_bytes as u64;
        let is_here = matches!(self.payload, Payload::Inline(_));
        let is_quick = is_here && self.form.is_quick(self.rows);
        Ok(Demand { key, job_bytes, is_quick, evaluator: Some(self.form.evaluator.clone()) })
    }
}

/// Checks a job, cheapest check first.
pub(crate) fn validate(
    message: &Message,
    returned: u32,
    rules: &Rules,
    models: &Models,
) -> Result<ValidJob, Failure> {
    let publisher = publisher(message, rules).map_err(Failure::Forged)?;
    let job = Job::from_message(message).map_err(|refusal| match refusal.code {
        ErrorCode::Malformed => Failure::Broken(refusal),
        _ => Failure::Refused(refusal),
    })?;
    authorise(publisher.as_ref(), &job)?;
    let now = Timestamp::now();
    if let Some(deadline) = job.deadline.filter(|deadline| *deadline <= now) {
        // Hours that nobody waited: one of two clocks is wrong.
        let late = Duration::from_secs(now.left(deadline).as_secs());
        let reason =
            format!("its deadline passed in the queue, {late:?} ago by this worker's clock");
        return Err(Failure::refused(ErrorCode::DeadlineExceeded, reason));
    }
    let forms = models.get(job.model_id).ok_or_else(|| unknown_model(message, &job))?;
    let form = forms.get(job.terms.form).ok_or_else(|| unknown_form(&job, forms))?.clone();
    check_size(&job, &form, rules)?;
    let address = Address {
        reply_to: job.reply_to,
        job: job.id,
        version: job.version,
        owner_id: job.terms.owner_id,
        correlation_id: job.correlation_id,
        model_id: Some(job.model_id),
        trace: job.trace,
        trace_state: trace_state(message).map(str::to_owned),
    };
    Ok(ValidJob {
        id: job.id,
        tenant: job.tenant,
        key_id: job.key_id,
        rows: job.rows,
        deadline: job.deadline,
        payload: job.payload,
        returned: rules.returned(message, returned),
        form,
        address,
    })
}

/// A job for a model that is not here. From the model's own queue it came while the model was
/// taken away, or exchanged: for some time, others may have it.
fn unknown_model(message: &Message, job: &Job) -> Failure {
    let reason = format!("this worker does not have model {}", job.model_id);
    let own_queue = message.routing_key == job_queue(job.model_id, job.lane);
    match own_queue && job.attempt < ATTEMPTS_WITHOUT_MODEL {
        true => Failure::Later(reason),
        false => Failure::refused(ErrorCode::UnknownModel, reason),
    }
}

/// A job whose rows are encrypted for a form that its model does not have. The artifact decides that,
/// which is the same at all workers.
fn unknown_form(job: &Job, forms: &ModelForms) -> Failure {
    let form = job.terms.form.map(FormName::as_str).unwrap_or_default();
    let reason = match forms.to_string().as_str() {
        "" => format!(
            "the rows are encrypted for form {form} (cs-form), and this model has one form, without a \
             name: encrypt them with its own client.zip"
        ),
        names => format!(
            "the rows are encrypted for form {form} (cs-form), which this model does not have: encrypt \
             them for {names}"
        ),
    };
    Failure::refused(ErrorCode::WrongShape, reason)
}

/// Who is answered when a job is not valid: nobody, unless it is certain that the address is the
/// publisher's own.
pub(crate) fn address(message: &Message, rules: &Rules) -> Option<Address> {
    let reply_to = message.reply_queue()?;
    let own = match publisher(message, rules).ok()? {
        Some(user) => *reply_to.tenant() == user,
        None => message.text(headers::TENANT) == Some(reply_to.tenant().as_str()),
    };
    own.then_some(())?;
    Some(Address {
        reply_to,
        job: message.job_id()?,
        version: message.version(),
        owner_id: None,
        correlation_id: message.correlation_id.clone(),
        model_id: message.model_id(),
        trace: message.text(headers::TRACE_PARENT).and_then(|trace| trace.parse().ok()),
        trace_state: trace_state(message).map(str::to_owned),
    })
}

/// Whom the broker vouches for; `None` where the job itself says whose it is.
fn publisher(message: &Message, rules: &Rules) -> Result<Option<Tenant>, Refusal> {
    if rules.tenants == Tenants::Single {
        return Ok(None);
    }
    let forbidden = |reason: &str| Refusal::new(ErrorCode::Forbidden, reason);
    let user = message.user_id.as_deref();
    let is_worker = user.is_some_and(|user| rules.is_worker(user));
    // A worker that puts a job off cannot publish in the tenant's name.
    let user = if is_worker { message.text(headers::PUBLISHED_BY) } else { user };
    let user = user.ok_or_else(|| forbidden("the message has no user id"))?;
    // A gateway publishes for whoever has a token of it.
    let user = match rules.gateway_users.iter().any(|gateway| gateway == user) {
        true => message.text(headers::TENANT).ok_or_else(|| forbidden("cs-tenant is missing"))?,
        false => user,
    };
    user.parse().map(Some).map_err(|_| forbidden("what should name the tenant is no name of one"))
}

fn authorise(publisher: Option<&Tenant>, job: &Job) -> Result<(), Failure> {
    let owner = publisher.unwrap_or(&job.tenant);
    if job.reply_to.tenant() != owner {
        let reason = format!("the reply queue is not one of tenant {owner}");
        return Err(Failure::Forged(Refusal::new(ErrorCode::Forbidden, reason)));
    }
    if job.tenant != *owner {
        let reason = format!("the job says tenant {}, and its publisher is {owner}", job.tenant);
        return Err(Failure::refused(ErrorCode::Forbidden, reason));
    }
    Ok(())
}

fn check_size(job: &Job, form: &ModelForm, rules: &Rules) -> Result<(), Failure> {
    let (rows, bytes) = (job.rows, job.payload.len());
    let too_large = |what, limit: u64, unit| {
        let reason = format!("{what} {unit}, where {limit} are allowed");
        Err(Failure::refused(ErrorCode::TooLarge, reason))
    };
    if rows > rules.max_job_rows {
        return too_large(u64::from(rows), rules.max_job_rows.into(), "rows");
    }
    if bytes > rules.max_job_bytes {
        return too_large(bytes, rules.max_job_bytes, "bytes");
    }
    let most = form.evaluator.footprint(rows).max_input_bytes;
    if rows == 0 || bytes == 0 || bytes > most {
        let reason = format!("{bytes} bytes for {rows} rows; at most {most} bytes are possible");
        return Err(Failure::refused(ErrorCode::WrongShape, reason));
    }
    Ok(())
}
