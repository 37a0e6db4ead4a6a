//! Deliveries of one channel.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use lapin::message::Delivery as Delivered;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Consumer};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Begun, Link, Slot};
use super::convert;
use crate::broker::{
    BrokerError, Delivery, Disposition, QueuePrefetch, Settle, Settled, Settlement, Settling,
    Subscription,
};

/// How often a subscription that has nothing to deliver looks whether its channel is still there.
const CHANNEL_CHECK: Duration = Duration::from_secs(5);

/// How often somebody who tells the broker something looks whether the channel is still there.
const TOLD_CHECK: Duration = Duration::from_millis(250);

/// Deliveries from RabbitMQ. When several queues have something, the one that was named first
/// comes first. Dropping it gives back whatever is not settled.
pub struct AmqpSubscription {
    slot: Arc<Slot>,
    state: Result<Open, BrokerError>,
}

struct Open {
    link: Arc<Link>,
    channel: Channel,
    sources: Vec<Source>,
    /// Cancellings that the broker has not answered: deliveries are taken until it does.
    cancelling: Vec<Begun>,
}

struct Source {
    queue: String,
    consumer: Consumer,
    stopped: bool,
}

pub(super) async fn subscribe(
    slot: &Arc<Slot>,
    queues: &[QueuePrefetch],
) -> Result<AmqpSubscription, BrokerError> {
    let link = slot.get().await?;
    let channel = slot.answer(&link, link.channel()).await?;
    let mut open = Open { link, channel, sources: Vec::new(), cancelling: Vec::new() };
    for queue in queues {
        open.start(slot, queue).await?;
    }
    Ok(AmqpSubscription { slot: slot.clone(), state: Ok(open) })
}

impl Open {
    async fn start(&mut self, slot: &Slot, queue: &QueuePrefetch) -> Result<(), BrokerError> {
        let QueuePrefetch { queue, prefetch } = queue;
        let name = ShortString::try_new(queue.as_str()).map_err(|error| BrokerError::Refused {
            server: slot.config.server(),
            reason: error.to_string(),
        })?;
        let consuming = async {
            // 0 would be without a limit. The limit is that of the next consumer.
            self.channel.basic_qos((*prefetch).max(1), BasicQosOptions { global: false }).await?;
            let options = BasicConsumeOptions::default();
            // The broker makes up a name for the consumer.
            self.channel.basic_consume(name, "".into(), options, FieldTable::default()).await
        };
        let consumer = slot.answer(&self.link, consuming).await?;
        self.sources.push(Source { queue: queue.clone(), consumer, stopped: false });
        Ok(())
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        slot: &Slot,
    ) -> Poll<Result<Delivery, BrokerError>> {
        let mut index = 0;
        while let Some(source) = self.sources.get_mut(index) {
            match Pin::new(&mut source.consumer).poll_next(context) {
                Poll::Ready(Some(Ok(delivered))) => {
                    // What arrived before the channel broke comes again.
                    if delivered.acker.usable() {
                        let limit = slot.config.confirm_timeout;
                        return Poll::Ready(Ok(source.delivery(delivered, &self.link, limit)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(self.link.error(&slot.config.server(), &error)));
                }
                Poll::Ready(None) if source.stopped => {
                    self.sources.remove(index);
                }
                Poll::Ready(None) => {
                    let reason = format!("it ended the consuming of {}", source.queue);
                    return Poll::Ready(Err(slot.unavailable(reason)));
                }
                Poll::Pending => index += 1,
            }
        }
        Poll::Pending
    }
}

impl Source {
    fn delivery(&self, delivered: Delivered, link: &Arc<Link>, limit: Duration) -> Delivery {
        let (acker, link) = (delivered.acker.clone(), link.clone());
        let settlement = Settlement::new(SettleAmqp { acker, link, limit });
        let (message, returned) = convert::message(delivered);
        Delivery { message, queue: self.queue.clone(), returned, settlement }
    }
}

impl Subscription for AmqpSubscription {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let Self { slot, state } = self;
        let error = loop {
            let open = match state {
                Ok(open) => open,
                Err(error) => return Err(error.clone()),
            };
            let next = poll_fn(|context| open.poll(context, slot));
            match timeout(CHANNEL_CHECK, next).await {
                Ok(Ok(delivery)) => return Ok(delivery),
                Ok(Err(error)) => break error,
                Err(_) if open.channel.status().connected() => {}
                Err(_) => break slot.unavailable("the channel is closed"),
            }
        };
        // Dropping the channel closes it.
        *state = Err(error.clone());
        Err(error)
    }

    async fn start(&mut self, queue: &QueuePrefetch) -> Result<(), BrokerError> {
        match &mut self.state {
            Ok(open) => open.start(&self.slot, queue).await,
            Err(error) => Err(error.clone()),
        }
    }

    async fn stop(&mut self, queue: &str) -> Result<(), BrokerError> {
        let open = match &mut self.state {
            Ok(open) => open,
            Err(error) => return Err(error.clone()),
        };
        for source in open.sources.iter_mut().filter(|source| source.queue == queue) {
            source.stopped = true;
            let options = BasicCancelOptions::default();
            open.cancelling.push(Begun::on(&open.link));
            let cancelling = open.channel.basic_cancel(source.consumer.tag(), options);
            let answered = self.slot.answer_in_time(&open.link, cancelling).await?;
            if let Some(begun) = open.cancelling.pop() {
                begun.answered();
            }
            answered?;
        }
        Ok(())
    }
}

struct SettleAmqp {
    acker: Acker,
    link: Arc<Link>,
    /// How long the word may wait to be written.
    limit: Duration,
}

impl SettleAmqp {
    async fn tell(&self, disposition: Disposition) -> bool {
        let told = match disposition {
            Disposition::Ack => self.acker.ack(BasicAckOptions::default()).await,
            Disposition::Requeue => {
                self.acker.nack(BasicNackOptions { multiple: false, requeue: true }).await
            }
            Disposition::DeadLetter => {
                self.acker.reject(BasicRejectOptions { requeue: false }).await
            }
        };
        told.unwrap_or(false)
    }
}

impl Settle for SettleAmqp {
    fn settle(self: Box<Self>, disposition: Disposition) -> Settling {
        Box::pin(async move {
            // What lapin takes up in the moment in which it ends a connection, it never answers:
            // nobody reads its queue any more, and nobody empties it.
            let ended = async {
                let started = Instant::now();
                while !self.acker.poisoned() {
                    if started.elapsed() >= self.limit {
                        // Unsettled, it would keep its place for as long as the connection lives.
                        self.link.kill();
                        break;
                    }
                    sleep(TOLD_CHECK).await;
                }
                // It may have been told all the same, and is answered in the next moment.
                sleep(TOLD_CHECK).await;
            };
            // Whatever it was not told comes again.
            let told = tokio::select! {
                biased;
                told = self.tell(disposition) => told,
                () = ended => false,
            };
            Ok(if told { Settled::Told } else { Settled::ComesAgain })
        })
    }
}
