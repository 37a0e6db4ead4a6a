mod hiding;
mod measured;

use std::sync::Arc;

use super::*;
use crate::bulk::artifact::BulkSpecs;
use crate::bulk::client::{BulkClient, ReplyShape};
use crate::bulk::noise::{Moments, sanitiser_variance};
use crate::bulk::program::{Node, Output, Program, ValidProgram};
use crate::bulk::secret::SecretKey;
use crate::bulk::tests::samples::{Numbers, affine, full_trees};
use crate::bulk::tests::{bit, fill_bits};

const NEVER: Stop<'static> = &|| false;

/// A model, its data owner, and what a worker has of both.
pub(super) struct Party {
    pub(super) program: ValidProgram,
    pub(super) specs: BulkSpecs,
    pub(super) client: BulkClient,
    evaluator: Arc<BulkEvaluator>,
    key: Option<Arc<PreparedKey>>,
}

impl Party {
    pub(super) fn new(
        program: Program,
        parameters: Parameters,
        hidden: bool,
        reply_primes: u32,
    ) -> Self {
        let program = program.validate().unwrap();
        let variance = Moments::new(&program).unwrap().variance(&parameters)
            + sanitiser_variance(&parameters, program.degree());
        let specs = BulkSpecs {
            parameters,
            columns: program.program().columns,
            outputs: u32::try_from(program.program().outputs.len()).unwrap(),
            degree: program.degree(),
            hidden,
            reply_primes,
            log2_sigma_phase: variance.log2() / 2.0,
            log2_p_fail: -128.0,
            security_bits: parameters.security_bits(),
        };
        let kind = match parameters.packing {
            Packing::Slots => crate::artifact::Kind::Ensemble,
            Packing::Coefficients => crate::artifact::Kind::Linear,
        };
        let zip = BulkServerArtifact::zip(kind, &specs, &program).unwrap();
        let evaluator = BulkEvaluator::new(BulkServerArtifact::open(&zip).unwrap()).unwrap();
        let secret = SecretKey::generate(&parameters).unwrap();
        let ring = Ring::new(parameters).unwrap();
        let key = hidden.then(|| {
            let bytes = secret.public_key(&ring).unwrap();
            assert!(bytes.len() <= evaluator.requirements().max_key_bytes);
            Arc::new(evaluator.prepare(bytes).unwrap())
        });
        let client = BulkClient::new(ring, &secret).unwrap();
        Self { program, specs, client, evaluator: Arc::new(evaluator), key }
    }

    pub(super) fn upload(&self, rows: usize) -> Vec<u8> {
        let upload = self.client.encrypt(rows, self.specs.columns, fill_bits).unwrap();
        assert_eq!(
            upload.len() as u64,
            self.evaluator.footprint(u32::try_from(rows).unwrap()).max_input_bytes
        );
        upload
    }

    pub(super) fn evaluate<'a>(
        &self,
        rows: u32,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<u8>, EvaluationError> {
        let mut job = Arc::clone(&self.evaluator).begin(self.key.clone(), rows)?;
        for chunk in chunks {
            job.push(chunk, NEVER)?;
        }
        job.finish(NEVER)
    }

    /// Every row of every output is the program's.
    fn check(&self, rows: usize, reply: &[u8]) {
        let shape = ReplyShape {
            rows,
            outputs: self.specs.outputs as usize,
            degree: self.specs.degree,
            primes: self.specs.reply_primes,
        };
        let outputs = self.client.decrypt(reply, shape).unwrap();
        for row in 0..rows {
            let bits: Vec<_> = (0..self.specs.columns).map(|column| bit(column, row)).collect();
            let found: Vec<_> = outputs.iter().map(|output| output[row]).collect();
            assert_eq!(found, self.program.interpret(&bits).unwrap(), "row {row}");
        }
    }
}

fn slots(ring_dimension: u32, primes: u32) -> Parameters {
    let packing = Packing::Slots;
    Parameters { packing, ring_dimension, primes, plaintext_modulus: 65537 }
}

fn trees(depth: u32) -> Program {
    let mut program = full_trees(&mut Numbers(7), 20, depth, 24);
    program.outputs.push(Output { constant: -3, roots: vec![1, 1] });
    program
}

fn linear() -> (Program, Parameters) {
    let weights: Vec<_> = (0..5u32).map(|column| (column, 1000 - 7 * i64::from(column))).collect();
    let program = Program {
        columns: 5,
        nodes: vec![Node::Affine(affine(11, &weights)), Node::Affine(affine(0, &[(3, -2)]))],
        outputs: vec![
            Output { constant: 5, roots: vec![0] },
            Output { constant: 0, roots: vec![1, 0] },
        ],
    };
    let (packing, plaintext_modulus) = (Packing::Coefficients, 1 << 20);
    (program, Parameters { packing, ring_dimension: 2048, primes: 1, plaintext_modulus })
}

#[test]
fn rows_decrypt_to_what_the_program_says() {
    for (party, rows) in [
        (Party::new(trees(2), slots(4096, 2), false, 2), 4097),
        (Party::new(trees(3), slots(4096, 2), false, 1), 1),
        (Party::new(trees(3), slots(8192, 3), true, 1), 8192),
        (Party::new(trees(4), slots(8192, 4), true, 2), 100),
        (Party::new(linear().0, linear().1, false, 1), 1),
        (Party::new(linear().0, linear().1, false, 1), 2048 + 300),
    ] {
        let upload = party.upload(rows);
        let reply = party.evaluate(u32::try_from(rows).unwrap(), [&upload[..]]).unwrap();
        party.check(rows, &reply);
    }
}

#[test]
fn an_upload_may_be_cut_anywhere() {
    let party = Party::new(trees(2), slots(4096, 2), false, 1);
    let (rows, upload) = (4100, party.upload(4100));
    let whole = party.evaluate(rows, [&upload[..]]).unwrap();
    for size in [1000, 1 << 17, 1 << 20] {
        assert!(party.evaluate(rows, upload.chunks(size)).unwrap() == whole, "{size}");
    }
    party.check(4100, &whole);
}

#[test]
fn hidden_replies_are_never_the_same_twice() {
    let party = Party::new(trees(2), slots(8192, 3), true, 1);
    let upload = party.upload(1);
    let replies = [(); 2].map(|()| party.evaluate(1, [&upload[..]]).unwrap());
    assert!(replies[0] != replies[1]);
    replies.iter().for_each(|reply| party.check(1, reply));
    assert_eq!(party.evaluator.released_coefficients(8193), 2 * 2 * 8192);
    let refused = Arc::clone(&party.evaluator).begin(None, 1);
    assert_eq!(refused.err(), Some(EvaluationError::KeyRequired));
}

#[test]
fn what_is_no_upload_of_so_many_rows_is_refused() {
    let party = Party::new(trees(2), slots(4096, 2), false, 1);
    let upload = party.upload(1);
    let shape = |result: Result<Vec<u8>, EvaluationError>, text: &str| match result {
        Err(EvaluationError::Shape(reason)) => assert!(reason.contains(text), "{reason}"),
        other => panic!("{other:?}"),
    };
    shape(party.evaluate(1, [&upload[..upload.len() - 1]]), "ends before");
    shape(party.evaluate(1, [&[][..]]), "ends before");
    shape(party.evaluate(1, [&upload[..], &[0]]), "behind the last row");
    shape(party.evaluate(0, []), "no rows");
    // A file may say any number: no memory for its outputs is an error, and no end of the program.
    assert!(matches!(party.evaluate(u32::MAX, [&upload[..]]), Err(EvaluationError::Shape(_))));
    let mut words = upload.clone();
    words[16 + 1632 * 24..][..7].fill(0xff);
    shape(party.evaluate(1, [&words[..]]), "below its modulus");
    let bytes = party.evaluator.footprint(1).memory_bytes;
    assert!(
        bytes < 64 << 20 && party.evaluator.footprint(u32::MAX).memory_bytes > 1 << 36,
        "{bytes}"
    );
}

#[test]
fn evaluation_stops_when_it_is_asked_to() {
    let party = Party::new(trees(2), slots(4096, 2), false, 1);
    let upload = party.upload(1);
    let mut job = Arc::clone(&party.evaluator).begin(None, 1).unwrap();
    assert_eq!(job.push(&upload, &|| true), Err(EvaluationError::Stopped));
    assert_eq!(job.push(&upload, NEVER), Err(EvaluationError::Stopped));
}

#[test]
fn the_planned_time_knows_the_kernel_and_what_hides() {
    let planned = |hidden, kernel| {
        let party = Party::new(trees(2), slots(8192, 3), hidden, 1);
        let evaluator = Arc::into_inner(party.evaluator).unwrap().with_kernel(kernel);
        evaluator.footprint(1).planned.unwrap()
    };
    let portable = Kernel::portable();
    for kernel in Kernel::available() {
        assert!(planned(true, kernel) > planned(false, kernel), "{kernel:?}");
        if kernel != portable {
            assert!(planned(false, portable) > 2 * planned(false, kernel), "{kernel:?}");
        }
    }
}
