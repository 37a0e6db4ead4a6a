//! What a bridge does beside events: renews keys in the store, and reads models again.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::OwnerStore;
use cipherscore_common::broker::Broker;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::gather::Lane;
use super::models::{Model, Passphrase, Stamp, UnusableModel};
use super::pipeline::Pipeline;
use super::settings::BridgeSettings;
use crate::blocking::blocking;
use crate::stream::StreamError;

/// Longest time between two renewals of a key.
const LONGEST_RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

impl<B: Broker, S: OwnerStore> Pipeline<B, S> {
    /// Puts the evaluation keys of all models into the store, or renews their leases.
    pub(super) async fn renew_keys(&self, lanes: &[Arc<Lane>]) -> Result<(), StreamError> {
        for lane in lanes {
            let model = Arc::clone(&lane.model.read());
            for form in model.forms() {
                self.fleet.renew_key(&form.target).await?;
            }
        }
        Ok(())
    }

    /// Does so again and again, and reads models whose files changed.
    pub(super) fn keep_up(
        self: &Arc<Self>,
        lanes: &Arc<Vec<Arc<Lane>>>,
        settings: &BridgeSettings,
        passphrase: &Passphrase,
        tasks: &mut JoinSet<()>,
    ) {
        let (renewing, its) = (Arc::clone(self), Arc::clone(lanes));
        // Twice in vain, and the third one is still in time.
        let renewal = (settings.producer.key_lease.duration() / 3).min(LONGEST_RENEWAL);
        tasks.spawn(async move {
            loop {
                sleep(renewal).await;
                if let Err(error) = renewing.renew_keys(&its).await {
                    warn!(%error, "a key was not renewed");
                }
            }
        });
        let (reading, its, passphrase) = (Arc::clone(self), Arc::clone(lanes), passphrase.clone());
        let pause = settings.bridge.reload_interval;
        tasks.spawn(async move {
            loop {
                sleep(pause).await;
                for lane in its.iter() {
                    reading.look_at(lane, &passphrase).await;
                }
            }
        });
    }

    /// Events that are underway are finished with the model by which they were read, unless they wait
    /// for the fleet.
    async fn look_at(&self, lane: &Arc<Lane>, passphrase: &Passphrase) {
        let (ours, passphrase) = (Arc::clone(lane), passphrase.clone());
        let name = lane.section.name.clone();
        match blocking(move || changed(&ours, &passphrase)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(model))) => {
                info!(name, model = %model.id, "the model, or its keys, were replaced");
                *lane.model.write() = Arc::new(model);
                self.state.meters().reloaded("done");
            }
            Ok(Err(error)) => {
                warn!(%error, "the files of a model changed, and the old ones are gone on with");
                self.state.meters().reloaded("failed");
            }
            Err(error) => warn!(%error, "a model was not looked at"),
        }
    }
}

fn changed(lane: &Lane, passphrase: &Passphrase) -> Result<Option<Model>, UnusableModel> {
    let model = Arc::clone(&lane.model.read());
    let stamp = Stamp::read(&lane.section, model.stamp(), &mut lane.marks.lock())?;
    match *model.stamp() == stamp {
        true => Ok(None),
        false => Model::open(&lane.section, passphrase).map(Some),
    }
}
