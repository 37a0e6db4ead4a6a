//! Compiles the circuits of `testdata/hostile` and records them.

use std::path::{Path, PathBuf};
use std::process::Command;

use cipherscore_concrete::recorder::{RecordError, RecorderCommand, record};
use cipherscore_engine::circuit::Circuit;
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters, Signature,
};

/// Name of the circuit in all of these objects.
pub(crate) const CIRCUIT: &str = "main";
const VARIANCE: f64 = 1e-9;

/// Two inputs and one output, each one ciphertext of dimension 32; a table has 32 words.
pub(crate) fn signature() -> Signature {
    let gate = Gate {
        shape: vec![],
        key: 0,
        lwe_dimension: 32,
        variance: VARIANCE,
        encoding: Encoding { width: 4, signed: false },
        compression: Compression::None,
    };
    let secret_key = |lwe_dimension| SecretKeyParameters { lwe_dimension };
    let keyset = KeysetParameters {
        secret_keys: vec![secret_key(32), secret_key(4)],
        bootstrap_keys: vec![BootstrapKeyParameters {
            input_key: 1,
            output_key: 0,
            level_count: 1,
            base_log: 23,
            glwe_dimension: 1,
            polynomial_size: 32,
            variance: VARIANCE,
        }],
        keyswitch_keys: vec![KeyswitchKeyParameters {
            input_key: 0,
            output_key: 1,
            level_count: 3,
            base_log: 4,
            variance: VARIANCE,
        }],
    };
    Signature { keyset, inputs: vec![gate.clone(), gate.clone()], outputs: vec![gate] }
}

/// The recorder of this crate.
pub(crate) fn recorder() -> RecorderCommand {
    RecorderCommand::new(env!("CARGO_BIN_EXE_cipherscore-recorder"), vec![])
}

/// Compiles `testdata/hostile/<name>.c` to a shared object.
pub(crate) fn compile(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hostile");
    let target = tempfile::tempdir().unwrap();
    let object: PathBuf = target.path().join("circuit.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-nostdlib", "-O1", "-w"])
        // Loops stay loops, and calls of `memset` stay calls.
        .args(["-fno-tree-loop-distribute-patterns", "-fno-builtin"])
        .arg("-o")
        .arg(&object)
        .arg(folder.join(name).with_extension("c"))
        .status()
        .expect("these tests need a C compiler (cc)");
    assert!(compiled.success(), "{name}.c does not compile");
    std::fs::read(object).unwrap()
}

/// Compiles and records.
#[allow(dead_code, reason = "not every test has the default time")]
pub(crate) fn record_source(name: &str) -> Result<Circuit, RecordError> {
    record(&recorder(), &compile(name), CIRCUIT, &signature())
}
