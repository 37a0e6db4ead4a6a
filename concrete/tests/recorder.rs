//! Records well-behaved circuits, and speaks to programs that are no recorder.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod recorder_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_concrete::recorder::{MAX_OBJECT_BYTES, RecordError, RecorderCommand, record};
use cipherscore_engine::circuit::{Affine, Circuit, Root, Term};
use recorder_support::{CIRCUIT, compile, record_source, recorder, signature};

fn inputs() -> Vec<Root> {
    (0..2).map(|argument| Root::Input { argument, index: 0 }).collect()
}

fn term(root: u32, coefficient: i64) -> Term {
    Term { root, coefficient }
}

#[test]
fn a_linear_circuit_is_recorded_exactly() {
    let circuit = record_source("linear").unwrap();
    let output = Affine { constant: 5u64.wrapping_neg(), terms: vec![term(0, -3), term(1, -3)] };
    let expected = Circuit { roots: inputs(), tables: vec![], outputs: vec![vec![output]] };
    assert_eq!(circuit, expected);
    circuit.validate(Arc::new(signature())).unwrap();
}

#[test]
fn a_table_is_recorded_exactly() {
    let circuit = record_source("table").unwrap();
    let keyswitch = |input| Root::Keyswitch { input, key: 0 };
    let bootstrap = |root| Root::Bootstrap { input: Affine::of_root(root), table: 0, key: 0 };
    let mut roots = inputs();
    roots.extend([keyswitch(Affine::of_root(0)), bootstrap(2)]);
    roots.extend([keyswitch(Affine::default()), bootstrap(4)]);
    // Signed entries: 2, 3, 0, 1 from the lowest phase, shifted to the top below one padding bit;
    // boxes of eight words, the first centred over zero, its other half negated at the end.
    let entry = |value: u64| value << 61;
    let table: Vec<u64> = [
        [entry(2); 4].as_slice(),
        &[entry(3); 8],
        &[entry(0); 8],
        &[entry(1); 8],
        &[entry(2).wrapping_neg(); 4],
    ]
    .concat();
    let output = Affine { constant: 0, terms: vec![term(3, 1), term(5, 1)] };
    assert_eq!(circuit, Circuit { roots, tables: vec![table], outputs: vec![vec![output]] });
    circuit.validate(Arc::new(signature())).unwrap();
}

#[test]
fn a_strided_result_is_read() {
    let circuit = record_source("strided_result").unwrap();
    assert_eq!(circuit.outputs, [[Affine::of_root(1)]]);
}

#[test]
fn blocks_are_copied_and_filled() {
    let circuit = record_source("blocks").unwrap();
    assert_eq!(circuit.outputs, [[Affine::of_root(0)]]);
}

#[test]
fn another_circuit_name_is_a_missing_entry() {
    let outcome = record(&recorder(), &compile("linear"), "other", &signature());
    assert_eq!(outcome, Err(RecordError::MissingEntry("_mlir_concrete_other".into())));
}

#[test]
fn a_signature_of_another_shape_is_refused() {
    let mut other = signature();
    other.outputs[0].shape = vec![2];
    let outcome = record(&recorder(), &compile("linear"), CIRCUIT, &other);
    assert!(matches!(outcome, Err(RecordError::NotTraceable(_))), "{outcome:?}");
    other.outputs.clear();
    let outcome = record(&recorder(), &compile("linear"), CIRCUIT, &other);
    assert!(matches!(outcome, Err(RecordError::InvalidParameters(_))), "{outcome:?}");
}

#[test]
fn a_huge_object_is_refused_at_once() {
    let outcome = record(&recorder(), &vec![0; MAX_OBJECT_BYTES + 1], CIRCUIT, &signature());
    assert!(matches!(outcome, Err(RecordError::TooLarge(_))), "{outcome:?}");
}

/// What may take as long as the machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records with a shell script in the recorder's place.
fn record_with_script(script: &str, limit: Duration) -> Result<Circuit, RecordError> {
    let arguments = vec!["-c".into(), script.into()];
    let mut command = RecorderCommand::new("/bin/sh", arguments);
    command.wall_clock_limit = limit;
    // More than a pipe holds, so that writing it blocks while nobody reads.
    record(&command, &vec![0; 1 << 20], CIRCUIT, &signature())
}

#[test]
fn programs_that_are_no_recorder_are_survived() {
    let record = |script| record_with_script(script, PATIENCE);
    let protocol = |outcome| matches!(outcome, Err(RecordError::Protocol(_)));
    assert!(protocol(record("exit 0")));
    assert!(protocol(record("exit 1")));
    assert!(protocol(record("exec 0<&-; echo rubbish that is long enough")));
    assert!(protocol(record("exec cat")));
    assert!(protocol(record("while :; do echo rubbish; done")));
    assert_eq!(record("kill -SYS $$"), Err(RecordError::ForbiddenSystemCall));
    assert_eq!(record("kill -XCPU $$"), Err(RecordError::TimedOut));
    assert_eq!(record("kill -KILL $$"), Err(RecordError::Crashed(9)));
    assert_eq!(
        record("exec >&- 2>&- sleep 100").unwrap_err().to_string(),
        "the recorder gave no valid answer: it is cut short; the zip may be hostile, do not use it"
    );
}

#[test]
fn a_program_that_hangs_is_killed_in_time() {
    let start = Instant::now();
    let record = |script| record_with_script(script, Duration::from_millis(500));
    assert_eq!(record("exec sleep 100"), Err(RecordError::TimedOut));
    // A grandchild that keeps the pipe open is not waited for.
    assert_eq!(record("sleep 25 & sleep 25"), Err(RecordError::TimedOut));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_child_gets_no_environment() {
    assert!(std::env::var_os("PATH").is_some());
    let script = "test -z \"$HOME$CARGO_MANIFEST_DIR\" && kill -KILL $$";
    assert_eq!(record_with_script(script, PATIENCE), Err(RecordError::Crashed(9)));
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let command = RecorderCommand::new("/nowhere/recorder", vec![]);
    let error = record(&command, &[], CIRCUIT, &signature()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/recorder"), "{error}");
}
