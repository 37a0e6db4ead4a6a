use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use cipherscore_ids::{ModelId, OwnerId};

use super::*;
use crate::rows::client::{ReplyCounts, RowClient};
use crate::rows::parameters::RowKeyParameters;
use crate::rows::secret::RowSecretKey;
use crate::rows::tests::models::{Shape, fixed_secret, plain_sums, steps};

/// Both sides of a model.
struct Sides {
    evaluator: Arc<RowEvaluator>,
    client: RowClient,
    key: Arc<PreparedKey>,
    program: RowProgram,
}

fn model_id() -> ModelId {
    ModelId::of(b"a model")
}

fn sides(shape: &Shape, kernel: Kernel) -> Sides {
    let (parameters, program) = shape.model(3);
    let ring = RowRing::new(&parameters.keys).unwrap();
    let secret = fixed_secret(&parameters.keys);
    let evaluator = RowEvaluator::new(model_id(), parameters.clone(), program.clone()).unwrap();
    let evaluator =
        Arc::new(evaluator.with_kernel(kernel).with_threads(NonZeroUsize::new(2).unwrap()));
    let key = evaluator.prepare(secret.evaluation_key(&ring).unwrap()).unwrap();
    let owner = OwnerId::from_bytes([4; 16]).unwrap();
    let client = RowClient::new(ring, parameters, model_id(), owner, &secret).unwrap();
    Sides { evaluator, client, key: Arc::new(key), program }
}

fn evaluate(sides: &Sides, rows: u32, upload: &[u8]) -> Result<Vec<u8>, EvaluationError> {
    let mut job = Arc::clone(&sides.evaluator).begin(Some(Arc::clone(&sides.key)), rows)?;
    for chunk in upload.chunks(1000) {
        job.push(chunk, &|| false)?;
    }
    job.finish(&|| false)
}

fn require_equal(shape: &Shape, kernel: Kernel, rows: usize) {
    let sides = sides(shape, kernel);
    let rows = shape.rows(rows, 5);
    let upload = sides.client.encrypt(&rows, &ReplyCounts::default()).unwrap();
    let count = u32::try_from(rows.len()).unwrap();
    let reply = evaluate(&sides, count, &upload.bytes).unwrap();
    let mut counts = ReplyCounts::default();
    let sums = sides.client.decrypt(upload.digest, count, &reply, &mut counts).unwrap();
    let expected: Vec<_> = rows.iter().map(|row| plain_sums(&sides.program, row)).collect();
    assert_eq!(sums, expected, "{shape:?}");
    assert_eq!(counts, ReplyCounts { answered_rows: rows.len() as u64, bad: 0 });
}

/// Rings, digits, groups, regions and moduli of all kinds.
#[test]
fn rows_decrypt_to_what_the_trees_say() {
    let small = Shape::small();
    let keys = |primes, rounds, digits| RowKeyParameters {
        ring_dimension: 8192,
        primes,
        steps: steps(rounds, digits),
    };
    let shapes = [
        small.clone(),
        // Several regions, in several ciphertexts of the reply.
        Shape { trees: vec![40, 3, 7], ..small.clone() },
        // One group: a trace and no expansion.
        Shape { keys: keys(3, 7, 1), group_columns: 64, trees: vec![2], ..small.clone() },
        // No trace: as many columns as the ring has room for.
        Shape { keys: keys(3, 12, 1), columns: 8192, group_columns: 2, ..small.clone() },
        // Groups of one column.
        Shape { keys: keys(3, 13, 1), group_columns: 1, ..small.clone() },
        // Trees of one leaf.
        Shape { trees: vec![3, 1], depth: 0, padding: 0, ..small.clone() },
        // Four primes, finer digits, long words.
        Shape {
            keys: keys(4, 9, 2),
            value_modulus: 1_073_741_827,
            tag_modulus: 251,
            tag_factors: 12,
            ..small.clone()
        },
        Shape { keys: keys(3, 9, 3), depth: 8, tag_modulus: 31, columns: 200, ..small.clone() },
    ];
    for shape in shapes {
        require_equal(&shape, Kernel::best(), 3);
    }
    for kernel in Kernel::available() {
        require_equal(&small, kernel, 40);
    }
}

/// Bytes that are no seed's, body's or owner's are checked, and lengths are exact.
#[test]
fn other_uploads_are_refused() {
    let shape = Shape::small();
    let sides = sides(&shape, Kernel::best());
    let upload = sides.client.encrypt(&shape.rows(1, 1), &ReplyCounts::default()).unwrap().bytes;
    let refused = |rows: u32, bytes: &[u8]| match evaluate(&sides, rows, bytes) {
        Err(EvaluationError::Shape(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(evaluate(&sides, 1, &upload).is_ok());
    for at in (0..10).chain(11..16).chain([40]) {
        let mut changed = upload.clone();
        changed[at] ^= 1;
        refused(1, &changed);
    }
    assert_eq!(refused(1, &[&upload[..], &[0]].concat()), "bytes behind the last row");
    assert_eq!(refused(1, &upload[..upload.len() - 1]), "the upload ends before its rows do");
    assert_eq!(refused(1, &[]), "the upload ends before its rows do");
    assert_eq!(refused(2, &upload), "the upload is of another number of rows");
    // The largest word of a body is none.
    let mut changed = upload;
    let first = UPLOAD_HEADER_BYTES + 16;
    changed[first..first + 8].fill(0xff);
    assert_eq!(refused(1, &changed), "row 0: a packed word is not below its modulus");
}

#[test]
fn other_keys_are_refused() {
    let shape = Shape::small();
    let sides = sides(&shape, Kernel::best());
    let ring = RowRing::new(&shape.keys).unwrap();
    let key = fixed_secret(&shape.keys).evaluation_key(&ring).unwrap();
    assert_eq!(key.len(), sides.evaluator.requirements().max_key_bytes);
    let refused = |bytes: &[u8]| match sides.evaluator.prepare(bytes.to_vec()) {
        Err(EvaluationError::NotConformant(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let changed = |at: usize| {
        let mut bytes = key.clone();
        bytes[at] ^= 1;
        bytes
    };
    let format = "not an evaluation key of the row engine, or one of another version";
    assert_eq!(refused(&[]), format);
    assert_eq!(refused(&key[..55]), format);
    assert_eq!((refused(&changed(0)), refused(&changed(8))), (format.into(), format.into()));
    for at in [12, 16, 52, 56, 57] {
        assert_eq!(refused(&changed(at)), "the key was made for other parameters", "{at}");
    }
    for bytes in [&key[..key.len() - 1], &[&key[..], &[0]].concat()] {
        assert!(refused(bytes).ends_with("are expected"), "{}", refused(bytes));
    }
    let mut large = key.clone();
    large[100..110].fill(0xff);
    assert_eq!(refused(&large), "evaluation key: a packed word is not below its modulus");
    // Another secret's key fits, and is not that of the upload.
    let other = RowSecretKey::generate(&shape.keys).unwrap();
    let other = sides.evaluator.prepare(other.evaluation_key(&ring).unwrap()).unwrap();
    let upload = sides.client.encrypt(&shape.rows(1, 1), &ReplyCounts::default()).unwrap();
    let mut job = Arc::clone(&sides.evaluator).begin(Some(Arc::new(other)), 1).unwrap();
    let error = job.push(&upload.bytes, &|| false);
    assert_eq!(error, Err(EvaluationError::OtherClientKey));
}

#[test]
fn programs_that_are_not_what_the_parameters_say_are_refused() {
    type Change = fn(&mut RowProgram);
    let changes: [Change; 8] = [
        |program| program.columns += 1,
        |program| drop(program.regions.pop()),
        |program| drop(program.regions[0].trees.pop()),
        |program| drop(program.regions[0].trees[0].leaves.pop()),
        |program| program.regions[0].trees[0].leaves[0].path[0].column = 60,
        |program| {
            let path = &mut program.regions[0].trees[0].leaves[0].path;
            path.resize(7, path[0]);
        },
        |program| program.regions[0].offset = 8209,
        |program| program.regions[0].trees[0].leaves[0].value = i64::MIN,
    ];
    let (parameters, program) = Shape::small().model(1);
    for change in changes {
        let mut changed = program.clone();
        change(&mut changed);
        assert!(RowEvaluator::new(model_id(), parameters.clone(), changed).is_err());
    }
    RowEvaluator::new(model_id(), parameters, program).unwrap();
}

/// Where a row takes far longer than its message, other workers get their share.
#[test]
fn large_models_are_not_quick() {
    let keys = RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(12, 1) };
    let shape = Shape { keys, columns: 2000, group_columns: 2, ..Shape::small() };
    let (parameters, program) = shape.model(3);
    let evaluator = RowEvaluator::new(model_id(), parameters, program).unwrap();
    assert!(!evaluator.requirements().is_quick);
}

/// What a job says that it takes is what its buffers are.
#[test]
fn requirements_are_constants_of_the_model() {
    let sides = sides(&Shape { trees: vec![40, 3, 7], ..Shape::small() }, Kernel::best());
    let requirements = sides.evaluator.requirements();
    assert!(requirements.needs_key && requirements.is_quick);
    assert_eq!(sides.key.bytes(), requirements.prepared_key_bytes);
    // With the canaries, whose noise depends on weights as that of every output does.
    let outputs: u32 = sides.client.parameters().regions.iter().map(|it| it.outputs).sum();
    assert_eq!(sides.evaluator.released_coefficients(3), 3 * (u64::from(outputs) + 8));
    let footprints = [1, 2, 3].map(|rows| sides.evaluator.footprint(rows));
    let upload =
        sides.client.encrypt(&Shape::small().rows(2, 1), &ReplyCounts::default()).unwrap().bytes;
    assert_eq!(footprints[1].max_input_bytes, upload.len() as u64);
    // Two threads, so that a third row waits.
    let planned = footprints.map(|footprint| footprint.planned.unwrap());
    assert!(planned[0] > std::time::Duration::from_millis(1));
    assert!(planned[0].abs_diff(planned[1] / 2) < std::time::Duration::from_micros(1));
    assert!(planned[2].abs_diff(planned[0] * 3) < std::time::Duration::from_micros(1));
    let [one, two, three] = footprints.map(|footprint| footprint.memory_bytes);
    assert!(one < two && two < three && three - two < (two - one) / 10);
    assert_eq!(sides.evaluator.footprint(u32::MAX).max_input_bytes, 4_294_967_295 * 782 + 96);
}

/// What stays for the next job is told, is no more than a job's footprint, and can be taken.
#[test]
fn idle_memory_is_told_and_released() {
    let shape = Shape::small();
    let sides = sides(&shape, Kernel::best());
    let upload = sides.client.encrypt(&shape.rows(1, 1), &ReplyCounts::default()).unwrap().bytes;
    assert_eq!(sides.evaluator.idle_bytes(), 0);
    for _ in 0..2 {
        evaluate(&sides, 1, &upload).unwrap();
        let idle = sides.evaluator.idle_bytes();
        assert!(idle > 1 << 20 && idle < sides.evaluator.footprint(1).memory_bytes, "{idle}");
    }
    sides.evaluator.release_idle();
    assert_eq!(sides.evaluator.idle_bytes(), 0);
    evaluate(&sides, 1, &upload).unwrap();
}

#[test]
fn a_stopped_job_stops() {
    let shape = Shape::small();
    let sides = sides(&shape, Kernel::best());
    let upload = sides.client.encrypt(&shape.rows(1, 1), &ReplyCounts::default()).unwrap().bytes;
    let begin = || Arc::clone(&sides.evaluator).begin(Some(Arc::clone(&sides.key)), 1).unwrap();
    assert_eq!(begin().push(&upload, &|| true), Err(EvaluationError::Stopped));
    let mut job = begin();
    job.push(&upload, &|| false).unwrap();
    assert_eq!(job.finish(&|| true), Err(EvaluationError::Stopped));
}

/// A watched evaluation is one, and every part of it is seen.
#[test]
fn a_watched_evaluation_sees_every_part() {
    let shape = Shape::small();
    let sides = sides(&shape, Kernel::best());
    let rows = shape.rows(2, 1);
    let upload = sides.client.encrypt(&rows, &ReplyCounts::default()).unwrap();
    let mut parts = std::collections::HashSet::new();
    let count = NonZeroU32::new(2).unwrap();
    let watch = &mut |part| {
        parts.insert(part);
    };
    let reply = sides.evaluator.evaluate_watched(&sides.key, count, &upload.bytes, watch).unwrap();
    assert_eq!(parts.len(), 7);
    let sums = sides.client.decrypt(upload.digest, 2, &reply, &mut ReplyCounts::default()).unwrap();
    assert_eq!(sums[1], plain_sums(&sides.program, &rows[1]));
}
