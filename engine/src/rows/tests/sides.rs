//! A worker and a client of one model, with randomness that is the same in every run.

use std::sync::Arc;

use cipherscore_ids::{ModelId, OwnerId};

use crate::rlwe::sampling::Noise;
use crate::rows::canary::ExecutionId;
use crate::rows::client::{RowClient, RowSeeds, RowUpload};
use crate::rows::evaluate::{RowJob, RowMachine};
use crate::rows::evaluation_key::RowEvaluationKey;
use crate::rows::expand::{Expander, Node};
use crate::rows::kernel::Kernel;
use crate::rows::parameters::RowParameters;
use crate::rows::program::RowProgram;
use crate::rows::reply::{ReplyHeader, seal};
use crate::rows::ring::RowRing;
use crate::rows::secret::RowSecretKey;
use crate::rows::tests::models::fixed_secret;
use crate::rows::upload::{SeedSource, UPLOAD_HEADER_BYTES};
use crate::rows::workspace::Workspace;

pub(crate) struct Sides {
    pub(crate) machine: RowMachine,
    pub(crate) client: RowClient,
    pub(crate) secret: RowSecretKey,
    pub(crate) key: RowEvaluationKey,
}

pub(crate) const EXECUTION: ExecutionId = ExecutionId([6; 16]);

/// A client of the model under a secret.
pub(crate) fn client(parameters: &RowParameters, secret: &RowSecretKey) -> RowClient {
    let ring = RowRing::new(&parameters.keys).unwrap();
    let model = ModelId::of(b"a model");
    RowClient::new(ring, parameters.clone(), model, OwnerId::from_bytes([4; 16]).unwrap(), secret)
        .unwrap()
}

impl Sides {
    pub(crate) fn new((parameters, program): (RowParameters, RowProgram)) -> Self {
        let program = program.validate(&parameters).unwrap();
        let ring = RowRing::new(&parameters.keys).unwrap();
        let secret = fixed_secret(&parameters.keys);
        let key = secret.evaluation_key(&ring).unwrap();
        let key = RowEvaluationKey::read(&key, &ring).unwrap();
        let client = client(&parameters, &secret);
        let machine = RowMachine::new(Arc::clone(&ring), parameters, program, Kernel::best());
        Self { machine, client, secret, key }
    }

    pub(crate) fn encrypt(&self, bits: &[bool]) -> RowUpload {
        self.encrypt_with(bits, 2)
    }

    pub(crate) fn encrypt_with(&self, bits: &[bool], seed: u8) -> RowUpload {
        let noise = || Noise::from_key(&[seed + 100; 16]);
        let seeds = || Ok(RowSeeds { mask: [seed; 16], noise: noise() });
        self.client.encrypt_with(SeedSource::Fresh, &[bits], seeds).unwrap()
    }

    pub(crate) fn workspace(&self) -> Workspace {
        Workspace::new(&self.machine.ring, &self.machine.parameters)
    }

    pub(crate) fn job<'a>(&'a self, upload: &'a RowUpload, noise: &'a Noise) -> RowJob<'a> {
        let bytes = &upload.bytes[UPLOAD_HEADER_BYTES..];
        RowJob { key: &self.key, bytes, execution: EXECUTION, row: 0, noise }
    }

    pub(crate) fn expander(&self) -> Expander<'_> {
        let RowMachine { ring, layout, kernel, .. } = &self.machine;
        Expander { ring, layout: *layout, key: &self.key, kernel: *kernel }
    }

    /// The words of the reply to a row whose ciphertext may be changed on the way.
    pub(crate) fn words(
        &self,
        upload: &RowUpload,
        noise: &Noise,
        change: impl FnOnce(&mut Node),
    ) -> Vec<u8> {
        let (job, mut workspace) = (self.job(upload, noise), self.workspace());
        let mut root = self.machine.unpack(job.bytes, &mut workspace).unwrap();
        change(&mut root);
        let mut words = Vec::new();
        self.machine.sum_products(job, root, &mut workspace, &mut |_| {});
        self.machine.write_outputs(job, &mut workspace, &mut |_| {}, &mut words);
        words
    }

    /// A reply of these words.
    pub(crate) fn reply(&self, upload: &RowUpload, words: &[u8]) -> Vec<u8> {
        let header = ReplyHeader {
            word_bits: self.machine.parameters.word_bits,
            rows: 1,
            execution: EXECUTION,
            upload: upload.digest.0,
        };
        let mut reply = [&header.to_bytes()[..], words].concat();
        seal(&mut reply);
        reply
    }
}
