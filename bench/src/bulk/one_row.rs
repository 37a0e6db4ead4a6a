//! Jobs of one row: an upload of a full ring batch for a single answer.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{Blob, EvaluationKeyId, JobId, Lease, RedisConfig, RedisStore, Tenant};
use cipherscore_producer::client::{Answer, Client, ClientOptions, JobRequest, Replies};
use cipherscore_producer::events::Events;
use cipherscore_producer::matrix::Matrix;

use super::Amount;
use super::setting::Setting;
use super::subjects::Subject;
use crate::numbers::Numbers;
use crate::table::{Table, Target, quantile, sorted};

type Owner = Client<AmqpBroker, RedisStore>;

pub(super) async fn measure(
    subject: &Subject,
    setting: &Setting,
    amount: &Amount,
    table: &mut Table,
) -> anyhow::Result<()> {
    eprintln!("jobs of one row");
    let key = subject.keys.evaluation.clone().context("a model without a key")?;
    let mut jobs = Jobs::new(subject, setting, key.clone()).await?;
    let mut numbers = Numbers::new(5);
    jobs.one(&subject.rows(1, &mut numbers)).await?;
    let watch = setting.watch();
    let mut values: [Vec<f64>; 2] = Default::default();
    for _ in 0..amount.repetitions {
        let mut seconds = Vec::new();
        for _ in 0..amount.one_row_jobs {
            let row = subject.rows(1, &mut numbers);
            let began = Instant::now();
            jobs.one(&row).await?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        let seconds = sorted(&seconds);
        values[0].push(quantile(&seconds, 0.5));
        values[1].push(quantile(&seconds, 0.99));
    }
    let others = watch.others();
    let [middle, slow] = values;
    let name = |what: &str| format!("{}, a job of one row: {what}", subject.name);
    let limit = Some(Target::AtMost(0.5));
    table.add(name("from features to scores, p50"), "s", middle, limit, others);
    table.add(name("from features to scores, p99"), "s", slow, limit, others);
    let upload = subject.encryption.model().payload_bytes(1) as f64 / 1e6;
    table.add(name("upload"), "MB", vec![upload], None, others);
    let key = key.len() as f64 / 1e3;
    table.add(name("evaluation key"), "KB", vec![key], Some(Target::AtMost(400.0)), others);
    Ok(())
}

/// A client of the services, and its replies.
struct Jobs<'a> {
    subject: &'a Subject,
    setting: &'a Setting,
    owner: Owner,
    replies: Replies<AmqpBroker, RedisStore>,
    key_id: EvaluationKeyId,
}

impl<'a> Jobs<'a> {
    async fn new(subject: &'a Subject, setting: &'a Setting, key: Vec<u8>) -> anyhow::Result<Self> {
        let broker = AmqpBroker::new(AmqpConfig::parse(&setting.starter.broker_url)?)?;
        let store = RedisStore::new(&RedisConfig::parse(&setting.starter.store_url)?)?;
        let queue = ReplyQueue::new(&Tenant::default(), "one-row")?;
        let (broker, store) = (Arc::new(broker), Arc::new(store));
        let options = ClientOptions::default();
        let owner = Client::open(broker, store, queue, options, Events::ignored()).await?;
        let key = Blob::evaluation_key(&Tenant::default(), key)?;
        owner.ensure_key(&key, Lease::days(1)).await?;
        let key_id = EvaluationKeyId::new(key.name().id);
        Ok(Self { subject, setting, replies: owner.replies(), owner, key_id })
    }

    /// Encrypts, publishes, waits and decrypts.
    async fn one(&mut self, row: &Matrix<f64>) -> anyhow::Result<()> {
        let request = JobRequest {
            form: None,
            planned: None,
            id: JobId::random(),
            model_id: self.setting.model_id,
            key_id: Some(self.key_id),
            owner_id: self.subject.encryption.owner(),
            rows: 1,
            deadline: None,
            correlation_id: None,
            payload: self.subject.encryption.encrypt(row)?.body,
        };
        self.owner.submit(request).await?;
        let received = self.replies.next().await?;
        match &received.answer {
            Answer::Scored(outputs) => drop(self.subject.encryption.decrypt(outputs, 1, None)?),
            other => bail!("a job of one row: {other:?}"),
        }
        received.ack().await;
        Ok(())
    }
}
