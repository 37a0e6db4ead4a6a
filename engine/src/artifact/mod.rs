//! The zips: `client.zip` and `server.zip`, and who they are.

mod archive;
mod manifest;
mod native_manifest;

pub use archive::{Archive, ArchiveError, MAX_ENTRIES, MAX_UNPACKED_BYTES, MAX_ZIP_BYTES};
pub use cipherscore_ids::{Digest, ModelId};
pub use manifest::{ARTIFACT_FORMAT_VERSION, Kind, Manifest, ManifestError};
pub use native_manifest::NativeManifest;

/// Names of the files inside an artifact.
pub mod names {
    /// Who the artifact is ([`Manifest`](super::Manifest)).
    pub const MANIFEST: &str = "model.json";
    /// The circuit, in our format.
    pub const CIRCUIT: &str = "circuit.bin";
    /// Polynomials of the bulk engine, in our format.
    pub const PROGRAM: &str = "program.bin";
    /// Paths of the row engine, in our format.
    pub const ROW_PROGRAM: &str = "rows.bin";
    /// Parameters of the row engine ([`RowSpecs`](crate::rows::artifact::RowSpecs)).
    pub const ROW_SPECS: &str = "rows.specs.json";
    /// Predicates and scores of the bulk engine ([`BulkClientModel`](crate::bulk::client_model)).
    pub const CLIENT_MODEL: &str = "processing.json";
    /// What the compiler found out about the model.
    pub const REPORT: &str = "report.json";
    /// Keys and gates, as Concrete wrote them.
    pub const CLIENT_SPECS: &str = "client.specs.json";
    /// Quantisers and post-processing, as Concrete ML wrote them.
    pub const PROCESSING: &str = "serialized_processing.json";
    /// What Concrete's compiler reports of a raw artifact, the failure probability among it.
    pub const COMPILATION_FEEDBACK: &str = "compilation_feedback.json";
    /// Versions of the packages that made the artifact.
    pub const VERSIONS: &str = "versions.json";
    /// Machine code of a raw Concrete artifact.
    pub const SHARED_OBJECT: &str = "sharedlib.so";
    /// Uncompiled form of a Concrete artifact, which is what Concrete ML saves by default.
    pub const MLIR: &str = "circuit.mlir";
    /// What the compiler was asked for, beside an uncompiled circuit.
    pub const CONFIGURATION: &str = "configuration.json";
    /// Which outputs may be inputs of a later call, beside an uncompiled circuit.
    pub const COMPOSITION_RULES: &str = "composition_rules.json";
    /// "1" when a Concrete artifact only simulates encryption.
    pub const IS_SIMULATED: &str = "is_simulated";
}
