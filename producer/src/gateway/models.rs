//! Models behind a gateway, and the `client.zip` with which a data owner begins.

use cipherscore_common::{Digest, ModelId, StoreError};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::GatewayClient;
use super::problem::Trouble;
use super::wire::{Concern, read, read_json};

/// A model behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Which model.
    pub model_id: ModelId,
    /// What the gateway hands out for it, if it has it.
    pub client_zip: Option<ServedClientZip>,
    /// Workers that say they have it.
    pub workers: u32,
}

/// A `client.zip` that a gateway hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedClientZip {
    /// Size, in bytes.
    pub bytes: u64,
    /// Digest of all bytes.
    pub sha256: Digest,
}

#[derive(Deserialize)]
struct ServedModels {
    models: Vec<ServedModel>,
}

impl GatewayClient {
    /// The models of which the gateway knows.
    pub async fn models(&self) -> Result<Vec<ServedModel>, StoreError> {
        let request = self.wire().request(Method::GET, "/v1/models");
        let read = async { read_json(self.wire().ask(Concern::Rest, request).await?).await };
        let models: Result<ServedModels, Trouble> = read.await;
        let models = models.map_err(|trouble| trouble.of_store(self.wire().server()))?;
        Ok(models.models)
    }

    /// The `client.zip` of a model, as whoever runs the fleet has put it there.
    ///
    /// # Errors
    /// There is none, or its digest is not the one that the gateway says.
    pub async fn client_zip(&self, model: ModelId) -> Result<Vec<u8>, StoreError> {
        self.read_client_zip(model).await.map_err(|trouble| match trouble {
            Trouble::Refused(problem) if problem.is_missing() => StoreError::Refused {
                server: self.wire().server().to_owned(),
                reason: format!(
                    "it has no client.zip of model {model}. `cipherscore models list --gateway URL` \
                     says of which it has; whoever runs the fleet puts this one there with `cipherscore \
                     models push SERVER_ZIP --client CLIENT_ZIP`"
                ),
            },
            other => other.of_store(self.wire().server()),
        })
    }

    async fn read_client_zip(&self, model: ModelId) -> Result<Vec<u8>, Trouble> {
        let request = self.wire().request(Method::GET, &format!("/v1/models/{model}/client.zip"));
        let answer = self.wire().ask(Concern::Blobs, request).await?;
        let said = answer.headers().get("cs-payload-sha256").and_then(|text| text.to_str().ok());
        let said: Option<Digest> = said.and_then(|text| text.parse().ok());
        let zip = read(answer, MAX_ZIP_BYTES).await?;
        let found = Digest::of(&zip);
        match said {
            Some(said) if said == found => Ok(zip),
            Some(said) => {
                Err(Trouble::Nonsense(format!("client.zip has digest {found} instead of {said}")))
            }
            None => Err(Trouble::Nonsense("client.zip comes without its digest".into())),
        }
    }
}
