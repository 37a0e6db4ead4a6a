//! Publishing: persistent, mandatory, confirmed.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::connection::{Begun, Link, Slot};
use super::convert;
use crate::broker::BrokerError;
use crate::message::Message;

/// How many messages may be on their way at a time; others wait for their turn.
const MAX_CHANNELS: usize = 64;
/// How often we look whether the broker takes messages again.
const BLOCKED_CHECK: Duration = Duration::from_millis(50);

/// Publishes, each message on a channel that has no other message on its way.
///
/// A shared channel would be of no use: lapin gives a returned message to whichever confirm comes
/// next, which is another message's when several are on their way, so that a lost message would
/// count as delivered. It also keeps one refused message, which costs its channel, from the others.
pub(super) struct Publisher {
    slot: Slot,
    turns: Semaphore,
}

/// What is needed of a message, checked for AMQP's lengths.
struct Ready<'a> {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: &'a [u8],
}

impl Publisher {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, turns: Semaphore::new(MAX_CHANNELS) }
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let ready = self.ready(message)?;
        let link = self.slot.get().await?;
        let limit = self.slot.config.confirm_timeout;
        let confirmed = match timeout(limit, self.confirmed(&link, ready)).await {
            Ok(confirmed) => confirmed?,
            Err(_) if link.is_blocked() => {
                return Err(unconfirmed("it takes no messages for now: memory or disk is short"));
            }
            Err(_) => return Err(unconfirmed(format!("nothing within {limit:?}"))),
        };
        let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
        match confirmed {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                Err(BrokerError::Unroutable { exchange, routing_key })
            }
            Confirmation::Nack(None) => Err(BrokerError::Full { exchange, routing_key }),
            Confirmation::NotRequested => Err(unconfirmed("the channel does not confirm")),
        }
    }

    fn ready<'a>(&self, message: &'a Message) -> Result<Ready<'a>, BrokerError> {
        let config = &self.slot.config;
        let ready = || {
            Ok(Ready {
                exchange: ShortString::try_new(message.exchange.as_str())?,
                routing_key: ShortString::try_new(message.routing_key.as_str())?,
                properties: convert::properties(message, config.user.as_deref())?,
                body: &message.body,
            })
        };
        ready().map_err(|error: lapin::types::ShortStringError| BrokerError::Refused {
            server: config.server(),
            reason: error.to_string(),
        })
    }

    async fn confirmed(
        &self,
        link: &Arc<Link>,
        ready: Ready<'_>,
    ) -> Result<Confirmation, BrokerError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.ok();
        while link.is_blocked() && link.is_up() {
            sleep(BLOCKED_CHECK).await;
        }
        let server = || self.slot.config.server();
        let channel = channel(link).await.map_err(|error| link.error(&server(), &error))?;
        let confirmed = send(link, &channel, ready).await.map_err(|error| {
            match link.error(&server(), &error) {
                // It may have been stored before the connection broke.
                BrokerError::Unavailable { reason, .. } => unconfirmed(reason),
                other => other,
            }
        })?;
        link.idle.lock().push(channel);
        Ok(confirmed)
    }
}

async fn channel(link: &Arc<Link>) -> lapin::Result<Channel> {
    let idle = || link.idle.lock().pop();
    while let Some(channel) = idle() {
        if channel.status().connected() {
            return Ok(channel);
        }
    }
    let begun = Begun::on(link);
    let opened = async {
        let channel = link.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    let opened = opened.await;
    begun.answered();
    opened
}

/// Only the writing has to be waited for: a confirm that comes late tells of a message that is
/// published again under its id.
async fn send(
    link: &Arc<Link>,
    channel: &Channel,
    ready: Ready<'_>,
) -> lapin::Result<Confirmation> {
    let Ready { exchange, routing_key, properties, body } = ready;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let begun = Begun::on(link);
    let written = channel.basic_publish(exchange, routing_key, options, body, properties).await;
    begun.answered();
    written?.await
}

fn unconfirmed(reason: impl Into<String>) -> BrokerError {
    BrokerError::Unconfirmed { reason: reason.into() }
}
