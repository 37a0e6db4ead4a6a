//! An owner's broker, a bridge beside it, and what comes out.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cipherscore_common::broker::{Broker, Disposition, MemoryBroker, QueuePrefetch, Subscription};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{Binding, Declare, Exchange, ExchangeKind, Queue, Topology};
use cipherscore_producer::bridge::lines::{LineLetters, LineSink, LineSource};
use cipherscore_producer::bridge::queue::{QueueSink, QueueSource};
use cipherscore_producer::bridge::settings::{BridgeSettings, ModelSection};
use cipherscore_producer::bridge::{BridgeReport, BridgeState, Ends, run};
use cipherscore_producer::model::FormChoice;
use cipherscore_producer::stream::Stream;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Owner, PATIENCE, Services, testdata};

/// Exchange of the owner's broker.
pub(super) const SHOP: &str = "shop";

/// The owner's broker, with these queues.
pub(super) async fn shop(queues: &[&str]) -> MemoryBroker {
    let broker = MemoryBroker::default();
    let exchange = Exchange { name: SHOP, kind: ExchangeKind::Direct, alternate: None };
    let queue = |name: &&str| Queue {
        name: (*name).to_owned(),
        dead_letter: None,
        message_ttl: None,
        expires: None,
        binding: Binding { exchange: SHOP, retry_step: None },
    };
    let queues = queues.iter().map(queue).collect();
    let topology = Topology { exchanges: vec![exchange], queues };
    broker.declare(&topology, Declare::Create).await.unwrap();
    broker
}

pub(super) fn message(queue: &str, body: impl Into<Vec<u8>>) -> Message {
    let (exchange, routing_key) = (SHOP.into(), queue.into());
    Message { exchange, routing_key, body: body.into(), ..Message::default() }
}

pub(super) async fn waiting(broker: &MemoryBroker, queue: &str) -> u32 {
    broker.queue_state(queue).await.unwrap().unwrap().messages
}

/// Takes so many messages out of a queue.
pub(super) async fn take(broker: &MemoryBroker, queue: &str, count: usize) -> Vec<Message> {
    let queues = [QueuePrefetch { queue: queue.into(), prefetch: u16::MAX }];
    let mut subscription = broker.subscribe(&queues).await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let delivery = next.expect("too few messages").unwrap();
        let (message, settlement) = (delivery.message, delivery.settlement);
        settlement.settle(Disposition::Ack).await.unwrap();
        messages.push(message);
    }
    messages
}

pub(super) fn parse(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| serde_json::from_slice(&message.body).unwrap()).collect()
}

pub(super) fn model(owner: &Owner) -> ModelSection {
    let own = owner.path("client.zip");
    let artifact = match own.exists() {
        true => owner.folder.path().to_owned(),
        false => testdata(&format!("concrete/{}", owner.name)),
    };
    ModelSection {
        name: owner.name.into(),
        artifact,
        keys: owner.path("keys"),
        model: None,
        form: FormChoice::Auto,
        when: None,
        features: BTreeMap::new(),
        labels: Vec::new(),
    }
}

pub(super) fn settings(owner: &Owner) -> BridgeSettings {
    BridgeSettings { models: vec![model(owner)], ..BridgeSettings::default() }
}

/// The committed row of this number, as an event.
pub(super) fn event(owner: &Owner, id: usize) -> Value {
    let text = std::fs::read_to_string(testdata(&format!("concrete/{}/rows.csv", owner.name)));
    let text = text.unwrap();
    let rows: Vec<_> = text.lines().skip(1).collect();
    let mut event = json!({ "id": id });
    for (feature, value) in rows[id % rows.len()].split(',').enumerate() {
        event[format!("f{feature}")] = value.parse::<f64>().unwrap().into();
    }
    event
}

/// What the clear model says of it.
pub(super) fn clear_scores(owner: &Owner, id: usize) -> Vec<f64> {
    let expected = owner.expected(1);
    owner.model.scores(&expected[id % expected.len()]).unwrap()
}

pub(super) struct Bridge {
    pub(super) state: Arc<BridgeState>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<BridgeReport>,
}

impl Bridge {
    pub(super) async fn start(services: &Services, settings: BridgeSettings, ends: Ends) -> Self {
        Self::start_with(services, settings, ends, Arc::default()).await
    }

    pub(super) async fn start_with(
        services: &Services,
        settings: BridgeSettings,
        ends: Ends,
        state: Arc<BridgeState>,
    ) -> Self {
        let (broker, store) = (services.broker.clone(), services.store.clone());
        let (broker, store) = (Arc::new(broker), Arc::new(store));
        let stream = Stream::open(broker, store, settings.producer.clone(), state.events());
        let (fleet, said) = (stream.await.unwrap(), Arc::clone(&state));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { _ = stopped.await };
            let passphrase = Arc::new(|| Ok(None));
            run(fleet, ends, settings, passphrase, said, stopped).await.unwrap()
        });
        Self { state, stop: Some(stop), task }
    }

    /// Between the queues `events`, `scores` and `dead` of the owner's broker.
    pub(super) async fn of_queues(
        services: &Services,
        settings: BridgeSettings,
        shop: &MemoryBroker,
    ) -> Self {
        let broker = Arc::new(shop.clone());
        let sink =
            |queue: &str| Box::new(QueueSink::new(Arc::clone(&broker), SHOP.into(), queue.into()));
        let queue = QueuePrefetch { queue: "events".into(), prefetch: u16::MAX };
        let source = Box::new(QueueSource::new(Arc::clone(&broker), queue));
        let ends = Ends { source, sink: sink("scores"), dead_letters: sink("dead") };
        Self::start(services, settings, ends).await
    }

    pub(super) async fn stop(mut self) -> BridgeReport {
        self.say_stop();
        self.end().await
    }

    pub(super) fn say_stop(&mut self) {
        _ = self.stop.take().unwrap().send(());
    }

    pub(super) async fn end(self) -> BridgeReport {
        // Not told to stop, though this goes.
        let _stop = self.stop;
        tokio::time::timeout(PATIENCE, self.task).await.expect("the bridge hangs").unwrap()
    }

    /// As by SIGKILL.
    pub(super) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

#[derive(Clone, Default)]
pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    pub(super) fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(super) fn of_lines(owner: &Owner, input: String, limit: usize) -> (Ends, Written, PathBuf) {
    let (written, dead) = (Written::default(), owner.path("dead.jsonl"));
    let ends = Ends {
        source: Box::new(LineSource::new(std::io::Cursor::new(input), limit)),
        sink: Box::new(LineSink::new(written.clone())),
        dead_letters: Box::new(LineLetters::open(&dead).unwrap()),
    };
    (ends, written, dead)
}
