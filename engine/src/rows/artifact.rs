//! The row form of an artifact: what both zips have of it, and the program of the `server.zip`.

use serde::{Deserialize, Serialize};

use super::parameters::RowParameters;
use super::program::{RowProgram, ValidRowProgram};
use crate::artifact::{Archive, Kind, ModelId, NativeManifest, names};
use crate::bulk::artifact::{BulkArtifactError, Files, bounded, inconsistent, json, to_json};
use crate::bulk::client_model::{BulkClientModel, Inputs};

/// Largest `rows.specs.json`, in bytes.
pub const MAX_ROW_SPECS_BYTES: usize = 64 << 10;

/// `rows.specs.json`: parameters of the row form, and what they are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSpecs {
    /// All that both sides must agree on.
    pub parameters: RowParameters,
    /// Base-2 logarithm of the probability that any output of a row is decrypted wrongly, at most.
    pub log2_p_fail: f64,
    /// Bits of security of the ciphertexts. Compared with the engine's table, never trusted.
    pub security_bits: u32,
}

impl RowSpecs {
    /// Checks parameters against the engine's table.
    pub fn validate(&self) -> Result<(), BulkArtifactError> {
        self.parameters.validate()?;
        let security_bits = self.parameters.keys.security_bits();
        if self.security_bits != security_bits {
            return inconsistent(format!(
                "rows that claim {} bits of security for parameters of {security_bits}",
                self.security_bits
            ));
        }
        if !self.log2_p_fail.is_finite() {
            return inconsistent("rows with a failure probability that is not finite");
        }
        let least = self.parameters.log2_failure();
        match self.log2_p_fail >= least {
            true => Ok(()),
            false => inconsistent(format!(
                "rows that claim to fail with probability 2^{:.1}, where their words give 2^{least:.1}",
                self.log2_p_fail
            )),
        }
    }

    /// Reads the file of either zip.
    pub(crate) fn of(archive: &Archive) -> Result<Self, BulkArtifactError> {
        let specs: Self =
            json(names::ROW_SPECS, bounded(archive, names::ROW_SPECS, MAX_ROW_SPECS_BYTES)?)?;
        specs.validate()?;
        Ok(specs)
    }

    /// Checks that rows become the columns, and sums the scores, of a client model.
    pub(crate) fn check_model(&self, model: &BulkClientModel) -> Result<(), BulkArtifactError> {
        model.validate()?;
        if !matches!(model.inputs, Inputs::Predicates(_)) {
            return inconsistent("rows of a model whose inputs are no predicates");
        }
        let (columns, outputs) = (model.inputs.columns(), model.scores.outputs.len());
        let RowParameters { columns: expected, regions, .. } = &self.parameters;
        match columns == *expected as usize && outputs == regions.len() {
            true => Ok(()),
            false => inconsistent(format!(
                "a processing.json of {columns} columns and {outputs} outputs, where rows have \
                 {expected} and {}",
                regions.len()
            )),
        }
    }

    /// What a `client.zip` has of the row form.
    pub(crate) fn client_files(&self, model: &BulkClientModel) -> Result<Files, BulkArtifactError> {
        self.validate()?;
        self.check_model(model)?;
        Ok(vec![(names::ROW_SPECS, to_json(names::ROW_SPECS, self)?)])
    }
}

/// The row form of a model as its workers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct RowServerArtifact {
    /// The model: digest of the zip.
    pub model_id: ModelId,
    /// Parameters.
    pub specs: RowSpecs,
    /// What is evaluated.
    pub program: ValidRowProgram,
}

impl RowServerArtifact {
    /// Opens a `server.zip` that has the row form.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        let archive = Archive::read(zip)?;
        let NativeManifest { kind, .. } = NativeManifest::open(&archive)?;
        match kind {
            Kind::Ensemble => Self::of(&archive, ModelId::of(zip)),
            other => inconsistent(format!("rows of a model of kind {other}")),
        }
    }

    /// Reads the row form of a `server.zip` with such an id.
    pub(crate) fn of(archive: &Archive, model_id: ModelId) -> Result<Self, BulkArtifactError> {
        let specs = RowSpecs::of(archive)?;
        let program = RowProgram::from_bytes(archive.require(names::ROW_PROGRAM)?)?;
        let program = program.validate(&specs.parameters)?;
        let centre = specs.parameters.value_centre();
        match program.program().regions.iter().find(|region| region.offset != centre) {
            None => Ok(Self { model_id, specs, program }),
            Some(region) => inconsistent(format!(
                "rows whose sums are from {}, where data owners take off {centre}",
                region.offset
            )),
        }
    }
}

/// What a `server.zip` has of the row form.
pub(crate) fn server_files(
    specs: &RowSpecs,
    program: &ValidRowProgram,
) -> Result<Files, BulkArtifactError> {
    specs.validate()?;
    Ok(vec![
        (names::ROW_SPECS, to_json(names::ROW_SPECS, specs)?),
        (names::ROW_PROGRAM, program.program().to_bytes()?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::artifact::BulkSpecs;
    use crate::bulk::client_model::{
        Link, OutputScale, Predicate, PredicateFeature, Predicates, Reading, Scores,
    };
    use crate::bulk::parameters::{Packing, Parameters};
    use crate::bulk::program::{ColumnSum, Node, Output, Program, ValidProgram};
    use crate::compiled::{CompiledClientArtifact, CompiledServerArtifact};
    use crate::model::ScoreKind;
    use crate::rows::parameters::OutputRegion;
    use crate::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree};
    use crate::rows::tests::models;

    fn specs() -> RowSpecs {
        let parameters = RowParameters {
            columns: 1,
            regions: vec![OutputRegion { outputs: 2, trees: 1 }],
            ..models::parameters()
        };
        let security_bits = parameters.keys.security_bits();
        RowSpecs { parameters, log2_p_fail: -128.0, security_bits }
    }

    fn rows() -> RowProgram {
        let leaf = |value, wanted| PathLeaf { value, path: vec![PathEdge { column: 0, wanted }] };
        let trees = vec![PathTree { leaves: vec![leaf(3, true), leaf(-3, false)] }];
        let offset = specs().parameters.value_centre();
        RowProgram { columns: 1, regions: vec![EnsembleRegion { offset, trees }] }
    }

    fn bulk() -> (BulkSpecs, ValidProgram) {
        let parameters = Parameters {
            packing: Packing::Slots,
            ring_dimension: 4096,
            primes: 2,
            plaintext_modulus: 40961,
        };
        let specs = BulkSpecs {
            parameters,
            columns: 1,
            outputs: 1,
            degree: 1,
            hidden: true,
            reply_primes: 1,
            log2_sigma_phase: 40.0,
            log2_p_fail: -128.0,
            security_bits: 134,
        };
        let node = Node::Affine(ColumnSum { constant: -3, terms: vec![(0, 6)] });
        let outputs = vec![Output { constant: 0, roots: vec![0] }];
        let program = Program { columns: 1, nodes: vec![node], outputs };
        (specs, program.validate().unwrap())
    }

    fn model() -> BulkClientModel {
        let feature =
            PredicateFeature { name: "age".into(), single_precision: true, cuts: vec![17.5] };
        let column = Predicate { feature: 0, atoms: vec![(0, 1).into()] };
        BulkClientModel {
            class_name: "XGBRegressor".into(),
            inputs: Inputs::Predicates(Predicates {
                features: vec![feature],
                columns: vec![column],
            }),
            scores: Scores {
                outputs: vec![OutputScale { step: 0.25, offset: 1.5 }],
                link: Link::Identity,
                kind: ScoreKind::Predictions,
                classes: vec![],
            },
            reading: Reading::default(),
        }
    }

    fn server_zip(has_bulk: bool, has_rows: bool) -> Vec<u8> {
        let (bulk_specs, bulk_program) = bulk();
        let program = rows().validate(&specs().parameters).unwrap();
        let bulk = has_bulk.then_some((&bulk_specs, &bulk_program));
        let specs = specs();
        let rows = has_rows.then_some((&specs, &program));
        CompiledServerArtifact::zip(Kind::Ensemble, bulk, rows).unwrap()
    }

    fn client(has_bulk: bool, has_rows: bool) -> CompiledClientArtifact {
        CompiledClientArtifact {
            kind: Kind::Ensemble,
            model_id: ModelId::of(&server_zip(has_bulk, has_rows)),
            bulk: has_bulk.then(|| bulk().0),
            rows: has_rows.then(specs),
            model: model(),
            report: b"{}\n".to_vec(),
        }
    }

    #[test]
    fn every_pair_of_forms_comes_back() {
        for (has_bulk, has_rows) in [(true, false), (false, true), (true, true)] {
            let zip = server_zip(has_bulk, has_rows);
            let server = CompiledServerArtifact::open(&zip).unwrap();
            assert_eq!((server.bulk.is_some(), server.rows.is_some()), (has_bulk, has_rows));
            if let Some(found) = &server.rows {
                assert_eq!((found.program.program(), &found.specs), (&rows(), &specs()));
                assert_eq!(&RowServerArtifact::open(&zip).unwrap(), found);
            }
            let client = client(has_bulk, has_rows);
            let zip = client.to_zip().unwrap();
            assert_eq!(CompiledClientArtifact::open(&zip).unwrap(), client);
            assert_eq!(client.bulk().is_some(), has_bulk);
        }
        assert!(RowServerArtifact::open(&server_zip(true, false)).is_err());
    }

    /// Opens a server.zip after a change to its specs, which its manifest then describes.
    fn refused(change: impl FnOnce(&mut RowSpecs), program: RowProgram) -> String {
        let mut specs = specs();
        change(&mut specs);
        let files = [
            (names::ROW_SPECS, to_json(names::ROW_SPECS, &specs).unwrap()),
            (names::ROW_PROGRAM, program.to_bytes().unwrap()),
        ];
        let zip = NativeManifest::seal(Kind::Ensemble, None, &files).to_zip().unwrap();
        CompiledServerArtifact::open(&zip).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_protect_or_does_not_fit_is_refused() {
        let ring = refused(|specs| specs.parameters.keys.primes = 5, rows());
        assert!(ring.starts_with("refused parameters of rows"), "{ring}");
        let bits = refused(|specs| specs.security_bits = 256, rows());
        assert!(bits.contains("claim 256 bits of security for parameters of 184"), "{bits}");
        let failure = refused(|specs| specs.log2_p_fail = -1e4, rows());
        assert!(failure.contains("claim to fail with probability 2^-10000.0"), "{failure}");
        let columns = refused(|specs| specs.parameters.columns = 2, rows());
        assert!(columns.contains("rows.bin is invalid: columns"), "{columns}");
        let mut moved = rows();
        moved.regions[0].offset += 1;
        let offset = refused(|_| {}, moved);
        assert!(offset.contains("rows whose sums are from"), "{offset}");
    }

    #[test]
    fn forms_of_other_models_are_refused() {
        let mut wide = client(true, true);
        wide.rows.as_mut().unwrap().parameters.columns = 2;
        let error = wide.to_zip().unwrap_err().to_string();
        assert!(error.contains("1 columns and 1 outputs, where rows have 2 and 1"), "{error}");
        let linear = CompiledClientArtifact { kind: Kind::Linear, ..client(false, true) };
        let error = CompiledClientArtifact::open(&linear.to_zip().unwrap()).unwrap_err();
        assert!(error.to_string().contains("rows of a model of kind linear"), "{error}");
    }
}
