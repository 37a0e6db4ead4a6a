//! Results that are settled, many with one request.
//!
//! Who settles one is told after the first attempt whether the gateway knows of it. Where it does not, it is
//! told again later: within a subscription an entry comes once.

use std::time::Duration;

use cipherscore_common::broker::{Disposition, Settle, Settled, Settling};
use cipherscore_common::{JobId, Pauses};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::GatewayClient;
use super::problem::Trouble;
use super::wire::{Concern, whole};

/// Results that one request settles, at most.
const MAX_SETTLED: usize = 1000;
/// Pauses before the gateway is told again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Which result, and where in the feed.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    #[serde(rename = "job_id")]
    pub(super) job: JobId,
    pub(super) entry: String,
}

/// A result that is settled, and who waits for the gateway to know.
pub(super) struct Told {
    place: Place,
    waiting: oneshot::Sender<Settled>,
}

/// What a gateway waits for with a result.
pub(super) struct FeedSettlement {
    place: Option<Place>,
    told: UnboundedSender<Told>,
    room: Option<OwnedSemaphorePermit>,
}

impl FeedSettlement {
    pub(super) fn new(
        place: Place,
        told: UnboundedSender<Told>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { place: Some(place), told, room: Some(room) }
    }
}

impl Settle for FeedSettlement {
    /// A gateway has no dead letters: what nobody shall try again is let go.
    fn settle(mut self: Box<Self>, disposition: Disposition) -> Settling {
        Box::pin(async move {
            let Some(place) = self.place.take() else { return Ok(Settled::ComesAgain) };
            match disposition {
                // To the next subscription.
                Disposition::Requeue => return Ok(Settled::ComesAgain),
                Disposition::DeadLetter => {
                    warn!(job = %place.job, "a result that cannot be read is let go");
                }
                Disposition::Ack => {}
            }
            let (waiting, heard) = oneshot::channel();
            if self.told.send(Told { place, waiting }).is_err() {
                return Ok(Settled::ComesAgain);
            }
            let settled = heard.await.unwrap_or(Settled::ComesAgain);
            // There is room for another one.
            drop(self.room.take());
            Ok(settled)
        })
    }
}

/// Without a word it stays unsettled, and keeps its room.
impl Drop for FeedSettlement {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            room.forget();
        }
    }
}

/// Tells the gateway of results that are settled, until nobody has any. No more than there is room for in
/// the subscription wait here.
pub(super) async fn settle_all(
    client: GatewayClient,
    name: String,
    mut told: UnboundedReceiver<Told>,
) {
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    // Those of which the gateway was told in vain.
    let mut places = Vec::new();
    loop {
        let next = match places.is_empty() {
            true => told.recv().await,
            // None: only those of before.
            false => timeout(pauses.take(), told.recv()).await.unwrap_or_default(),
        };
        let is_over = next.is_none() && told.is_closed() && told.is_empty();
        if places.is_empty() && next.is_none() {
            return;
        }
        let mut waiting = Vec::new();
        let mut more = next;
        while let Some(Told { place, waiting: who }) = more {
            places.push(place);
            waiting.push(who);
            more = told.try_recv().ok();
        }
        let settled = match settle(&client, &name, &mut places).await {
            Ok(()) => {
                pauses.reset();
                Settled::Told
            }
            Err(trouble) => {
                warn!(reason = %trouble, "results are not settled at the gateway yet");
                Settled::ComesAgain
            }
        };
        for who in waiting {
            // Who does not wait any more knows that it may come again.
            let _ = who.send(settled);
        }
        if is_over {
            return;
        }
    }
}

/// Takes out of `places` what the gateway knows.
async fn settle(
    client: &GatewayClient,
    name: &str,
    places: &mut Vec<Place>,
) -> Result<(), Trouble> {
    while !places.is_empty() {
        let some = places.len().min(MAX_SETTLED);
        let body = serde_json::json!({"results": places[..some]});
        let request = client
            .wire()
            .request(Method::POST, &format!("/v1/clients/{name}/settle"))
            .header(CONTENT_TYPE, "application/json");
        let body = whole(body.to_string());
        client.wire().send(Concern::Results, request, body, Duration::ZERO).await?;
        places.drain(..some);
    }
    Ok(())
}
