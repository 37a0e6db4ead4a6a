//! The models that are measured, each compiled, with keys of a data owner.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use cipherscore_compiler::trained::TrainedModel;
use cipherscore_compiler::{Bins, CompileOptions, Compiled, compile, read};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::bulk::evaluator::{BulkEvaluator, BulkPart};
use cipherscore_engine::bulk::kernel::Kernel;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{Encryption, NewKeys};

use super::rows::{Training, example, random};
use super::trained::{full_trees, linear};
use crate::numbers::Numbers;

/// Values of ensembles' rows that are missing.
const MISSING: f64 = 0.02;

/// What Concrete ML has measured seconds of, for the same constructor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counterpart {
    Xgb50x4,
    Tree5,
    Linear,
}

/// A compiled model, and its data owner.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Rows a second of the engine on one thread, at least.
    pub(super) target: Option<f64>,
    pub(super) counterpart: Option<Counterpart>,
    pub(super) compiled: Compiled,
    pub(super) server: BulkServerArtifact,
    pub(super) client: BulkClientArtifact,
    pub(super) encryption: Arc<dyn Encryption>,
    pub(super) keys: NewKeys,
    ranges: Vec<(f64, f64)>,
    missing: f64,
}

/// The first one is the hidden model that is measured from end to end.
pub(super) fn all() -> anyhow::Result<Vec<Subject>> {
    let xgb = read(&example("model.json")?, None)?;
    let training = Training::read(&xgb)?;
    let options = |hide, log2_p_fail| CompileOptions {
        calibration: Some(training.calibration()),
        bins: Bins::Used,
        hide,
        log2_p_fail,
        ..CompileOptions::default()
    };
    let new = |name, model: &TrainedModel, options, counterpart, target: fn(u32) -> Option<f64>| {
        Subject::new(name, model, &options, counterpart, target, &training).context(name)
    };
    let open = |dimension| Some(if dimension == 4096 { 250_000.0 } else { 150_000.0 });
    let (xgb_of, tree_of, linear_of) =
        (Some(Counterpart::Xgb50x4), Some(Counterpart::Tree5), Some(Counterpart::Linear));
    let tree = full_trees(&xgb, &training, 1, 5);
    let large = full_trees(&xgb, &training, 100, 6);
    let linear = linear(&xgb, &training);
    Ok(vec![
        new("XGB 50 x 4, hidden", &xgb, options(true, -128.0), xgb_of, |_| Some(100_000.0))?,
        new("XGB 50 x 4, 2^-64", &xgb, options(false, -64.0), xgb_of, open)?,
        new("XGB 50 x 4, 2^-128", &xgb, options(false, -128.0), xgb_of, open)?,
        new("linear, 30 features", &linear, options(false, -128.0), linear_of, |_| Some(5e6))?,
        new("tree of depth 5", &tree, options(false, -128.0), tree_of, |_| Some(500_000.0))?,
        new("100 full trees of depth 6", &large, options(false, -128.0), None, |_| None)?,
    ])
}

impl Subject {
    fn new(
        name: &'static str,
        model: &TrainedModel,
        options: &CompileOptions,
        counterpart: Option<Counterpart>,
        target: fn(u32) -> Option<f64>,
        training: &Training,
    ) -> anyhow::Result<Self> {
        let compiled = compile(model, options)?;
        let server = BulkServerArtifact::open(&compiled.server_zip)?;
        let client = BulkClientArtifact::open(&compiled.client_zip)?;
        let model = open_client(&compiled.client_zip)?;
        let keys = model.make_keys(&|| ())?;
        let may_be_missing = model.interface().features.clone();
        let may_be_missing = may_be_missing.iter().all(|feature| feature.may_be_missing);
        Ok(Self {
            name,
            target: target(server.specs.parameters.ring_dimension),
            counterpart,
            encryption: model.with_key(&keys.client)?,
            compiled,
            server,
            client,
            keys,
            ranges: training.ranges().to_vec(),
            missing: if may_be_missing { MISSING } else { 0.0 },
        })
    }

    /// N.
    pub(super) fn dimension(&self) -> usize {
        self.server.specs.parameters.dimension()
    }

    /// On so many threads, which must be those of the pool.
    pub(super) fn evaluator(
        &self,
        kernel: Kernel,
        threads: NonZeroUsize,
    ) -> anyhow::Result<Arc<BulkEvaluator>> {
        let evaluator = BulkEvaluator::new(self.server.clone())?;
        Ok(Arc::new(evaluator.with_threads(threads).with_kernel(kernel)))
    }

    /// On one thread, telling where the time goes.
    pub(super) fn watched(
        &self,
        watch: impl Fn(BulkPart) + Send + Sync + 'static,
    ) -> anyhow::Result<Arc<BulkEvaluator>> {
        let evaluator = BulkEvaluator::new(self.server.clone())?;
        Ok(Arc::new(evaluator.with_threads(NonZeroUsize::MIN).with_watch(watch)))
    }

    /// The evaluation key, if one is needed.
    pub(super) fn prepared(
        &self,
        evaluator: &BulkEvaluator,
    ) -> anyhow::Result<Option<Arc<PreparedKey>>> {
        match (&self.keys.evaluation, evaluator.requirements().needs_key) {
            (Some(key), true) => Ok(Some(Arc::new(evaluator.prepare(key.clone())?))),
            (None, true) => bail!("a hidden model without an evaluation key"),
            _ => Ok(None),
        }
    }

    /// Random rows that it takes.
    pub(super) fn rows(&self, count: usize, numbers: &mut Numbers) -> Matrix<f64> {
        random(&self.ranges, count, self.missing, numbers)
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let (specs, report) = (&self.server.specs, &self.compiled.report);
        format!(
            "{}: {} columns, degree {}, N = {}, {} primes of which {} are in a reply, t = {}; a \
             row takes {:.0} B up, {:.0} B down, and {:.2} us as the compiler expects",
            self.name,
            specs.columns,
            specs.degree,
            specs.parameters.ring_dimension,
            specs.parameters.primes,
            specs.reply_primes,
            specs.parameters.plaintext_modulus,
            report.upload_bytes_per_row,
            report.reply_bytes_per_row,
            report.microseconds_per_row,
        )
    }
}
