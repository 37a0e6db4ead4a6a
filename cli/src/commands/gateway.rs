//! `cipherscore gateway`

use std::process::ExitCode;

use cipherscore_gateway::command::{GatewayCommand, run};
use clap::Args;

/// Speak HTTP with data owners, and AMQP with the fleet: one port and a token, and no user of broker or
/// store. Sees ciphertexts only. docs/gateway.md of the sources says what is asked and answered.
#[derive(Args)]
pub(crate) struct Gateway {
    #[command(subcommand)]
    command: GatewayCommand,
}

impl Gateway {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        run(self.command, json)
    }
}
