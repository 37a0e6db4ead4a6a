//! `cipherscore demo`

mod beside;
mod bulk;
mod bulk_example;
mod circuits;
mod events;
mod examples;
mod jobs;
mod printer;
mod services;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cipherscore_common::broker::Broker;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{ModelId, Store, Tenant};
use cipherscore_producer::client::{Client, ClientOptions};
use cipherscore_producer::events::Events;
use cipherscore_producer::score::unique_client;
use clap::Args;
use serde::Serialize;

use self::bulk_example::BulkExample;
use self::examples::{EXAMPLES, Example};
use self::printer::{Printer, grouped};
use self::services::Services;
use crate::exit::Exit;
use crate::print::say;

/// See all of it: real models score real rows under encryption, through a message queue.
///
/// The demo plays every part. A data owner makes keys, puts its evaluation key into the store,
/// encrypts rows and publishes jobs; workers evaluate them without seeing a value; the data owner
/// decrypts the replies and compares them with what the model predicts without encryption. Two
/// models are Concrete ML's; the third is XGBoost's, compiled by cipherscore, and scores in bulk and one
/// event at a time.
#[derive(Args)]
pub(crate) struct Demo {
    /// RabbitMQ that runs already, as amqp://USER:PASSWORD@HOST:PORT/VHOST, instead of a broker in
    /// this process. Other users of this machine can read command lines.
    #[arg(long, value_name = "URL", requires = "redis")]
    broker: Option<String>,

    /// Redis that runs already, as redis://USER:PASSWORD@HOST:PORT/NUMBER, instead of a store in
    /// this process.
    #[arg(long, value_name = "URL", requires = "broker")]
    redis: Option<String>,
}

/// All that was done.
#[derive(Serialize)]
struct Played {
    /// Models of Concrete ML.
    circuits: Vec<circuits::Act>,
    /// A model of XGBoost.
    bulk: bulk::Act,
    /// The same, one row at a time.
    events: events::Act,
    seconds: f64,
}

impl Demo {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let models = tempfile::Builder::new().prefix("cipherscore-demo-").tempdir()?;
        let example = BulkExample::compile(json)?;
        EXAMPLES.iter().try_for_each(|example| example.write_to(models.path()))?;
        beside::CIRCUIT.write_to(models.path())?;
        example.write_to(models.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let played = runtime.block_on(self.play(models.path(), &example, json))?;
        if json {
            say!("{}", serde_json::to_string_pretty(&played)?);
        }
        let exit = played.conclude(&Printer { json });
        if exit == Exit::Disagrees {
            eprintln!("error: some scores are not those of the models in the clear");
        }
        Ok(exit.into())
    }

    async fn play(&self, models: &Path, bulk: &BulkExample, json: bool) -> anyhow::Result<Played> {
        match (&self.broker, &self.redis) {
            (Some(broker), Some(redis)) => {
                play(Services::running(broker, redis, models).await?, bulk, json).await
            }
            _ => play(Services::embedded(models).await?, bulk, json).await,
        }
    }
}

fn model_ids(bulk: &BulkExample) -> anyhow::Result<Vec<ModelId>> {
    let mut ids: Vec<_> = EXAMPLES.iter().map(Example::model_id).collect::<Result<_, _>>()?;
    ids.extend([beside::CIRCUIT.model_id()?, bulk.model_id]);
    Ok(ids)
}

async fn play<B: Broker + Clone, S: Store>(
    mut services: Services<B, S>,
    bulk_example: &BulkExample,
    json: bool,
) -> anyhow::Result<Played> {
    let started = Instant::now();
    let print = Printer { json };
    print.line("Encrypted scoring through a message queue. Workers never see a value.");
    print.title("The services");
    services.describe().iter().for_each(|(what, text)| print.fact(what, text.clone()));
    services.wait_for_worker(&model_ids(bulk_example)?).await?;

    let queue = ReplyQueue::new(&Tenant::default(), &unique_client("demo"))?;
    let (broker, store) = (Arc::new(services.broker.clone()), services.store.clone());
    let options = ClientOptions::default();
    let client = Client::open(broker, store, queue, options, Events::ignored()).await?;
    let mut acts = Vec::new();
    for (number, example) in EXAMPLES.iter().enumerate() {
        let title = format!("Model {}: {}", number + 1, example.subject);
        acts.push(circuits::act(&client, example, &title, &print).await?);
    }
    let title = format!("Model {}: {}", EXAMPLES.len() + 1, bulk_example::SUBJECT);
    let bulk = bulk::act(&client, bulk_example, &title, &print).await?;
    let title = format!("Model {} again: {}", EXAMPLES.len() + 1, events::SUBJECT);
    let circuit = &bulk.concrete_circuit;
    let events = events::act(&client, bulk_example, circuit, &title, &print).await?;
    services.end().await;
    Ok(Played { circuits: acts, bulk, events, seconds: started.elapsed().as_secs_f64() })
}

impl Played {
    /// Says whether all of it agrees, and ends so.
    fn conclude(&self, print: &Printer) -> Exit {
        let rows: usize = self.circuits.iter().map(|act| act.rows).sum();
        let equal: usize = self.circuits.iter().map(|act| act.equal_rows).sum();
        let within = self.bulk.rows_within_bound + self.events.rows_within_bound;
        let compared = self.bulk.rows + self.events.rows;
        print.line("");
        print.line(&format!(
            "{equal} of {rows} scores equal Concrete ML's in the clear, {} of {} agree with XGBoost's \
             within the bound; done in {:.1} s.",
            grouped(within),
            grouped(compared),
            self.seconds
        ));
        match equal == rows && within == compared {
            true => Exit::Done,
            false => Exit::Disagrees,
        }
    }
}
