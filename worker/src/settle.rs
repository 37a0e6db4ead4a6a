//! The last step: the word to the broker.

use cipherscore_common::broker::{Disposition, Settled, Settlement};
use tracing::{debug, warn};

/// Tells the broker, for every delivery of the job. Without a disposition nothing is told: the
/// deliveries come again, to whoever consumes then.
pub(crate) async fn settle(ending: Option<Disposition>, settlements: Vec<Settlement>) {
    let Some(disposition) = ending else { return };
    for settlement in settlements {
        match settlement.settle(disposition).await {
            Ok(Settled::Told) => debug!(?disposition, "the broker was told"),
            // It comes again, and the mark of what is done answers it.
            Ok(Settled::ComesAgain) => debug!("the broker did not hear of it, and sends it again"),
            Err(error) => warn!(%error, "the broker could not be told"),
        }
    }
}
