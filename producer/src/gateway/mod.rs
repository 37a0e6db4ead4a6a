//! A gateway in the place of broker and store: one HTTPS port and a token. `docs/gateway.md` says what it
//! speaks.
//!
//! A [`GatewayClient`] is broker and store at once, as far as a data owner needs them, so that whatever
//! works with RabbitMQ and Redis works with a gateway: jobs are bodies of the protocol, the reply queue
//! of a client is its feed, and blobs are the payloads, outputs and evaluation keys that the gateway
//! keeps. Its token says the tenant.

mod access;
mod broker;
mod feed;
mod models;
mod problem;
mod settling;
mod store;
mod wire;

use std::sync::Arc;

use cipherscore_common::{StoreError, Tenant};
use hyper::Method;
use serde::Deserialize;
use thiserror::Error;

pub use access::{GatewayAccess, GatewaySettings, InvalidGateway};
pub use feed::FeedSubscription;
pub use models::{ServedClientZip, ServedModel};

use self::problem::Trouble;
use self::wire::{Concern, Wire, read_json};

/// Why there is no connection to a gateway.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// It does not answer, or does not let us in.
    #[error("the gateway at {server}: {reason}")]
    Refused {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// Its token is somebody else's.
    #[error(
        "the token of the gateway is of tenant {token}, and the settings name tenant {settings}: \
         leave the tenant out, since the token says it, or take the token of this tenant"
    )]
    OtherTenant {
        /// Whose the token is.
        token: Tenant,
        /// Whose jobs it should be.
        settings: Tenant,
    },
}

/// Broker and store of a data owner, behind a gateway. Clones share its connections.
#[derive(Clone)]
pub struct GatewayClient {
    shared: Arc<Shared>,
}

struct Shared {
    wire: Wire,
    me: Me,
}

/// What `GET /v1/me` says.
#[derive(Debug, Deserialize)]
struct Me {
    tenant: Tenant,
    limits: Limits,
}

/// As far as a client keeps to them by itself.
#[derive(Debug, Deserialize)]
struct Limits {
    /// Longest wait for results.
    max_wait_seconds: u64,
    /// Results of one answer, at most.
    max_results: usize,
}

impl GatewayClient {
    /// Asks who we are. A gateway that is away is an error here, since its address may be wrong; later it
    /// is waited for.
    pub async fn open(access: GatewayAccess) -> Result<Self, GatewayError> {
        let wire = Wire::new(access);
        let me = match who(&wire).await {
            Ok(me) => me,
            Err(trouble) => {
                let server = wire.server().to_owned();
                return Err(GatewayError::Refused { server, reason: trouble.to_string() });
            }
        };
        Ok(Self { shared: Arc::new(Shared { wire, me }) })
    }

    /// Whose keys and jobs these are: the token says it.
    pub fn tenant(&self) -> &Tenant {
        &self.shared.me.tenant
    }

    /// The tenant, which must be that of the settings, unless these do not name one.
    pub fn require_tenant(&self, settings: &Tenant) -> Result<Tenant, GatewayError> {
        let token = self.tenant();
        match token == settings || *settings == Tenant::default() {
            true => Ok(token.clone()),
            false => {
                Err(GatewayError::OtherTenant { token: token.clone(), settings: settings.clone() })
            }
        }
    }

    fn wire(&self) -> &Wire {
        &self.shared.wire
    }

    /// Whether it is there, and still knows us.
    async fn ask_who(&self) -> Result<(), Trouble> {
        let me = who(self.wire()).await?;
        match me.tenant == *self.tenant() {
            true => Ok(()),
            false => Err(Trouble::Nonsense(format!("the token is of tenant {} now", me.tenant))),
        }
    }

    /// Nothing of another tenant is behind this token.
    fn require_own(&self, tenant: &Tenant) -> Result<(), StoreError> {
        match tenant == self.tenant() {
            true => Ok(()),
            false => Err(StoreError::Refused {
                server: self.wire().server().to_owned(),
                reason: format!("the token is of tenant {}, not of {tenant}", self.tenant()),
            }),
        }
    }
}

async fn who(wire: &Wire) -> Result<Me, Trouble> {
    read_json(wire.ask(Concern::Rest, wire.request(Method::GET, "/v1/me")).await?).await
}
