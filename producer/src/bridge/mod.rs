//! From an event in the owner's systems to a score in them.
//!
//! A bridge is a process inside the data owner's walls. It takes clear events from a [source](EventSource),
//! has their rows scored encrypted by the fleet, and gives clear scores to a [sink](ScoreSink). The
//! guarantee: **an event is settled at its source when its score is safe at the sink, and not before.**
//! So each event has at least one score; all scores of an event have the same [key](event_key), and an
//! event that comes again while it is remembered is not scored again. Events that can have no score
//! go to the [dead letters](DeadLetterSink), with a reason.
//!
//! `pipeline` is the way of an event in one file.

mod cloud;
mod ends;
mod events;
mod fate;
mod file_marks;
mod gather;
pub mod http;
mod jobs;
pub mod lines;
mod meters;
mod models;
mod outage;
mod parts;
mod paths;
mod pipeline;
pub mod queue;
mod record;
mod rooms;
mod scores;
pub mod settings;
mod state;
mod turns;
mod upkeep;
mod window;

use std::sync::Arc;

use cipherscore_common::OwnerStore;
use cipherscore_common::broker::Broker;
use parking_lot::RwLock;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::info;

pub use self::ends::open_ends;
pub use self::events::event_key;
pub use self::models::{Passphrase, UnusableModel};
pub use self::record::{
    Arrival, Claim, DeadCode, DeadLetterSink, DeadReason, EndError, Ended, Ends, EventSource,
    FromSource, Record, ScoreSink, Waiting,
};
pub use self::state::{BridgeCounts, BridgeReadiness, BridgeState};

use self::events::EventReader;
use self::gather::{Gathering, Lane};
use self::models::Model;
use self::pipeline::{Pipeline, pauses};
use self::rooms::Rooms;
use self::scores::ScoreFormat;
use self::settings::{BridgeSection, BridgeSettings, ModelSection};
use self::state::Place;
use self::turns::Turns;
use self::window::Window;
use crate::blocking::blocking;
use crate::stream::{Stream, StreamError};

/// Why a bridge does not begin, or cannot go on.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// Something in the configuration makes no sense.
    #[error("{0}")]
    Settings(String),
    /// A model.
    #[error(transparent)]
    Model(#[from] UnusableModel),
    /// The fleet.
    #[error(transparent)]
    Fleet(#[from] StreamError),
    /// What cannot be is.
    #[error("this is a fault of the bridge: {0}")]
    Fault(String),
    /// A source, a sink or a place for dead letters is gone for good.
    #[error("{place}: {reason}")]
    End {
        /// Which one.
        place: &'static str,
        /// Why.
        reason: String,
    },
}

/// How a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BridgeReport {
    /// Events.
    #[serde(flatten)]
    pub counts: BridgeCounts,
    /// Whether the source has nothing more, and all of it was settled.
    pub is_complete: bool,
}

/// Takes events until the source ends, or until `stop`: then those that are underway are finished
/// within the grace period, and others are left to the source.
pub async fn run<B: Broker, S: OwnerStore>(
    fleet: Stream<B, S>,
    ends: Ends,
    settings: BridgeSettings,
    passphrase: Passphrase,
    state: Arc<BridgeState>,
    stop: impl Future<Output = ()>,
) -> Result<BridgeReport, BridgeError> {
    let mut stop = std::pin::pin!(stop);
    let Ends { mut source, sink, dead_letters } = ends;
    let section = &settings.bridge;
    let reader = EventReader::new(settings.events.clone(), section.max_event_bytes());
    let reader = reader.map_err(BridgeError::Settings)?;
    require_interval(section)?;
    let models = open_models(&settings, &passphrase).await?;
    let rooms = Rooms::new(&settings, &models)?;
    let (fatal, mut fatalities) = mpsc::unbounded_channel();
    let (_alive, alive) = watch::channel(());
    let pipeline = Arc::new(Pipeline {
        fleet,
        sink,
        dead_letters,
        reader,
        format: ScoreFormat(settings.scores.clone()),
        window: Window::new(section.window, settings.http.remembered_bytes()),
        turns: Turns::default(),
        state: Arc::clone(&state),
        fatal,
        alive,
    });
    // Ends with this.
    let mut tasks = JoinSet::new();
    let lanes = Arc::new(begin_lanes(&settings, models, &pipeline, &mut tasks));
    tokio::select! {
        biased;
        () = &mut stop => {
            _ = timeout(section.grace_period, source.close()).await;
            return Ok(BridgeReport { counts: state.counts(), is_complete: false });
        }
        renewed = pipeline.renew_keys(&lanes) => renewed?,
    }
    pipeline.keep_up(&lanes, &settings, &passphrase, &mut tasks);
    state.has_started();
    info!(models = lanes.len(), "the bridge takes events");
    let is_at_end = loop {
        tokio::select! {
            biased;
            () = &mut stop => break false,
            Some(error) = fatalities.recv() => return Err(error),
            Some(ended) = tasks.join_next() => return Err(early(&ended)),
            taken = next(&mut *source, &rooms, &state) => match taken? {
                Some((arrival, room)) => pipeline.take(arrival, room, |route| lane_of(&lanes, route)),
                None => break true,
            }
        }
    };
    info!("the bridge takes no further events");
    let settled = async { tokio::join!(rooms.all(), source.close()) };
    let grace = async {
        if is_at_end {
            stop.await;
        }
        sleep(section.grace_period).await;
    };
    let is_settled = tokio::select! {
        biased;
        Some(error) = fatalities.recv() => return Err(error),
        Some(ended) = tasks.join_next() => return Err(early(&ended)),
        _ = settled => true,
        () = grace => false,
    };
    let counts = state.counts();
    require_settled(is_settled, counts, &mut fatalities)?;
    Ok(BridgeReport { counts, is_complete: is_at_end && counts.underway() == 0 })
}

/// Whoever panics lets go of its event, and says so then.
fn require_settled(
    all_are: bool,
    counts: BridgeCounts,
    fatalities: &mut mpsc::UnboundedReceiver<BridgeError>,
) -> Result<(), BridgeError> {
    if !all_are || counts.underway() == 0 {
        return Ok(());
    }
    let lost = |_| BridgeError::Fault("an event was let go of and not settled".into());
    Err(fatalities.try_recv().unwrap_or_else(lost))
}

fn require_interval(section: &BridgeSection) -> Result<(), BridgeError> {
    match section.reload_interval.is_zero() {
        true => {
            let wrong = "bridge.reload_interval must not be 0: models would be read all the time";
            Err(BridgeError::Settings(wrong.into()))
        }
        false => Ok(()),
    }
}

/// Tasks of a bridge end with it, and not before.
fn early(ended: &Result<(), JoinError>) -> BridgeError {
    let how = ended.as_ref().err().map_or("it returned".into(), ToString::to_string);
    BridgeError::Fault(format!("a task ended before the bridge: {how}"))
}

/// The next event, when there is room for it.
async fn next(
    source: &mut dyn EventSource,
    rooms: &Rooms,
    state: &Arc<BridgeState>,
) -> Result<Option<(Arrival, OwnedSemaphorePermit)>, BridgeError> {
    let mut room = rooms.take().await;
    let (mut pauses, mut waiter) = (pauses(), None);
    loop {
        match source.next().await {
            Ok(FromSource::Event(arrival)) => {
                drop(waiter);
                rooms.give_back(&mut room, arrival.record.bytes());
                return Ok(Some((arrival, room)));
            }
            Ok(FromSource::Open) => waiter = None,
            Ok(FromSource::End) => return Ok(None),
            Err(EndError::Away(reason)) => {
                waiter = Some(state.waits(Place::Source, &reason));
                sleep(pauses.take()).await;
            }
            Err(EndError::Gone(reason)) => {
                return Err(BridgeError::End { place: Place::Source.as_str(), reason });
            }
        }
    }
}

async fn open_models(
    settings: &BridgeSettings,
    passphrase: &Passphrase,
) -> Result<Vec<(ModelSection, Model)>, BridgeError> {
    let sections = settings.models.clone();
    if sections.is_empty() {
        return Err(BridgeError::Settings("which model? There is no section [[models]]".into()));
    }
    let is_routed = settings.events.route.is_some();
    for (index, section) in sections.iter().enumerate() {
        let wrong =
            |text: &str| Err(BridgeError::Settings(format!("model {}: {text}", section.name)));
        match &section.when {
            Some(_) if !is_routed => return wrong("`when` needs events.route"),
            None if is_routed => return wrong("events.route is given, so it needs `when`"),
            None if sections.len() > 1 => {
                return wrong("several models need events.route and `when`");
            }
            _ => {}
        }
        let others = &sections[..index];
        if others.iter().any(|other| other.name == section.name || other.when == section.when) {
            return wrong("another model has the same name, or the same `when`");
        }
    }
    let passphrase = Arc::clone(passphrase);
    let open = move || {
        let open = |section: ModelSection| {
            let model = Model::open(&section, &passphrase)?;
            Ok::<_, UnusableModel>((section, model))
        };
        sections.into_iter().map(open).collect::<Result<Vec<_>, _>>()
    };
    let opened = blocking(open).await.map_err(StreamError::Stopped)?;
    Ok(opened?)
}

/// Lanes, and a task for each that makes jobs of its events.
fn begin_lanes<B: Broker, S: OwnerStore>(
    settings: &BridgeSettings,
    models: Vec<(ModelSection, Model)>,
    pipeline: &Arc<Pipeline<B, S>>,
    tasks: &mut JoinSet<()>,
) -> Vec<Arc<Lane>> {
    let max_rows = settings.bridge.max_rows();
    let max_rows = max_rows.and_then(|rows| usize::try_from(rows.get()).ok());
    let begin = |(section, model): (ModelSection, Model)| {
        info!(name = section.name, model = %model.id, "model");
        let (events, taken) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(settings.producer.in_flight.get().into()));
        let model = RwLock::new(Arc::new(model));
        let (marks, outage) = Default::default();
        let taken_slots = Arc::clone(&slots);
        let lane = Lane { section, model, marks, events, slots: taken_slots, outage };
        let lane = Arc::new(lane);
        let max_wait = settings.bridge.max_wait;
        let mut gathering = Gathering::new(taken, max_wait, max_rows, slots);
        let (pipeline, ours) = (Arc::clone(pipeline), Arc::clone(&lane));
        tasks.spawn(async move {
            while let Some(group) = gathering.group().await {
                pipeline.score(&ours, group);
            }
        });
        lane
    };
    models.into_iter().map(begin).collect()
}

fn lane_of(lanes: &[Arc<Lane>], route: Option<&str>) -> Option<Arc<Lane>> {
    let takes = |lane: &&Arc<Lane>| lane.section.when.as_deref() == route;
    match lanes {
        [lane] if lane.section.when.is_none() => Some(Arc::clone(lane)),
        lanes => lanes.iter().find(takes).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_not_read_all_the_time() {
        let mut section = BridgeSection::default();
        assert!(require_interval(&section).is_ok());
        section.reload_interval = std::time::Duration::ZERO;
        assert!(require_interval(&section).is_err());
    }
}
