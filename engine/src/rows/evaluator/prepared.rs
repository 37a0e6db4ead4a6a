//! Rows that are prepared before they come.
//!
//! What a row's reply depends on is its mask's seed, and, linearly, its bodies: the rounds of trace and
//! expansion add key switches of the mask to them and double them, nothing else. So with the seed alone
//! a worker does everything ahead, as if all bodies were 0, and when they come, adds
//!
//! ```text
//! sum over the path's columns of omega_(s,j) 2^tau body_j
//! ```
//!
//! to each output s: one product for each edge and prime.
//!
//! # Rules
//!
//! All are fatal if they are broken.
//!
//! * A state meets one body, ever: with two bodies, the difference of the replies has the weights in the
//!   clear. So [`PreparedRow`] cannot be copied or written down, and [`PreparedRow::answer`] takes it,
//!   whether there is an answer or not. A delivery of the same upload that finds no state is evaluated
//!   from the start, with fresh randomness and a whole new reply.
//! * A ticket meets one body too, as any seed does: see [`RowTicket`](crate::rows::client::RowTicket).
//! * Whoever keeps states binds each to the session that asked for it, lets it expire in minutes, and
//!   limits how many an owner has, as each has cost an evaluation.

use std::sync::Arc;

use sha2::Digest as _;
use zeroize::{DefaultIsZeroes, Zeroizing};

use super::{RowEvaluator, entropy, refused};
use crate::evaluator::{EvaluationError, PreparedKey};
use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::sampling::Noise;
use crate::rlwe::words::WordsError;
use crate::rows::bits::BitWriter;
use crate::rows::canary::ExecutionId;
use crate::rows::domain::Domain;
use crate::rows::evaluate::{RowJob, RowMachine};
use crate::rows::evaluation_key::RowEvaluationKey;
use crate::rows::expand::Expander;
use crate::rows::hide::HiddenOutputs;
use crate::rows::reply::{ReplyHeader, reply_row_len, seal};
use crate::rows::upload::{SeedSource, UPLOAD_HEADER_BYTES, UploadError, read_bodies, row_len};
use crate::rows::workspace::Workspace;

/// An edge of an output.
#[derive(Clone, Copy, Default)]
struct OutputEdge {
    output: u32,
    column: u32,
    /// Centred modulo t, with the sign that it has in the output.
    weight: i64,
}

impl DefaultIsZeroes for OutputEdge {}

/// All of a reply but what its bodies add. Wiped when dropped, never printed.
pub(in crate::rows) struct RowState {
    /// Words of the masks of all ciphertexts.
    masks: Vec<u64>,
    /// Of each output its residues, each times the inverse of the other primes.
    residues: Zeroizing<Vec<u64>>,
    /// In the order of outputs.
    edges: Zeroizing<Vec<OutputEdge>>,
}

impl HiddenOutputs for RowState {
    fn mask(&mut self, words: impl Iterator<Item = u64>) {
        self.masks.extend(words);
    }

    fn output(&mut self, residues: &[u64]) {
        self.residues.extend(residues);
    }
}

impl RowMachine {
    /// Evaluates a row whose bodies are 0, up to its words.
    pub(in crate::rows) fn prepare(&self, job: RowJob<'_>, workspace: &mut Workspace) -> RowState {
        let root = self.unpack(job.bytes, workspace).expect("zeros are residues");
        let watch = &mut |_| {};
        self.sum_products(job, root, workspace, watch);
        let outputs = self.layout.outputs() * self.ring.primes().len();
        let mut state = RowState {
            masks: Vec::new(),
            residues: Zeroizing::new(Vec::with_capacity(outputs)),
            edges: self.edges(job.key, workspace),
        };
        self.hide_outputs(job, workspace, watch, &mut state);
        state
    }

    /// The edges of all outputs, from the polynomials of weights.
    fn edges(&self, key: &RowEvaluationKey, workspace: &Workspace) -> Zeroizing<Vec<OutputEdge>> {
        let layout = self.layout;
        let (per_reply, dimension) = (layout.outputs_per_reply(), self.ring.dimension());
        let expander = Expander { ring: &self.ring, layout, key, kernel: self.kernel };
        let narrow = |number: usize| u32::try_from(number).expect("within a limit");
        let mut edges = Zeroizing::new(Vec::with_capacity(self.program.edges()));
        for reply in 0..layout.reply_ciphertexts() {
            for rank in 0..layout.used_groups() {
                let group = layout.group_at(rank);
                for weight in workspace.weights.polynomial(reply, group) {
                    // s - l N/c modulo N.
                    let power = weight.coefficient as usize + expander.shift(group);
                    let place = power % per_reply;
                    let column_place = (dimension + place - power % dimension) / per_reply;
                    let column_place = column_place % layout.group_columns();
                    let is_negative = place < column_place * per_reply + expander.shift(group);
                    edges.push(OutputEdge {
                        output: narrow(reply * per_reply + place),
                        column: narrow(rank * layout.group_columns() + column_place),
                        weight: if is_negative { -weight.value } else { weight.value },
                    });
                }
            }
        }
        edges.sort_unstable_by_key(|edge| edge.output);
        edges
    }

    /// The words of the reply to a row's packed bodies.
    pub(in crate::rows) fn answer(
        &self,
        mut state: RowState,
        packed: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), WordsError> {
        let (columns, count) = (self.layout.columns(), self.ring.primes().len());
        let mut bodies = vec![0; columns];
        // Modulo the last prime all bodies are 0.
        for (prime, ring) in self.ring.primes()[..count - 1].iter().enumerate() {
            read_bodies(packed, &self.ring, prime, &mut bodies)?;
            let field = &ring.montgomery;
            let doublings = field.power(2, self.parameters.keys.rounds().into());
            // Both in Montgomery form: their product is.
            let factor = field.product(
                field.montgomery_form(field.montgomery_form(doublings)),
                self.fractions[prime].cofactor,
            );
            bodies.iter_mut().for_each(|body| *body = field.product(*body, factor));
            for edge in state.edges.iter() {
                let word = &mut state.residues[edge.output as usize * count + prime];
                let weight = field.residue(edge.weight);
                *word = field.add(*word, field.product(weight, bodies[edge.column as usize]));
            }
        }
        let mut writer = BitWriter::new(reply);
        let bits = self.parameters.word_bits;
        let masks = state.masks.chunks(self.ring.dimension());
        for (index, mask) in masks.enumerate() {
            mask.iter().for_each(|&word| writer.push(word, bits));
            for output in self.layout.outputs_of(index) {
                let residues = &state.residues[output * count..][..count];
                writer.push(self.word(self.fraction(residues)), bits);
            }
        }
        writer.finish();
        Ok(())
    }
}

/// A row of one model, key and seed, evaluated before it has come. Wiped when dropped, never printed,
/// and neither copied nor written down.
pub struct PreparedRow {
    evaluator: Arc<RowEvaluator>,
    key: Arc<RowEvaluationKey>,
    seed: [u8; SEED_BYTES],
    execution: ExecutionId,
    state: RowState,
}

impl std::fmt::Debug for PreparedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreparedRow")
    }
}

impl RowEvaluator {
    /// Evaluates a row that will come with this seed.
    pub fn prepare_row(
        self: &Arc<Self>,
        key: &PreparedKey,
        seed: [u8; SEED_BYTES],
    ) -> Result<PreparedRow, EvaluationError> {
        let key: Arc<RowEvaluationKey> = key.open(self.keyset_id())?;
        let execution = ExecutionId(*entropy().expect("the system gives random numbers"));
        let noise = Noise::fresh().expect("the system gives random numbers");
        let mut bytes = vec![0; row_len(self.parameters())];
        bytes[..SEED_BYTES].copy_from_slice(&seed);
        let job = RowJob { key: &key, bytes: &bytes, execution, row: 0, noise: &noise };
        let state = self.with_workspace(|workspace| self.machine.prepare(job, workspace));
        Ok(PreparedRow { evaluator: Arc::clone(self), key, seed, execution, state })
    }
}

impl PreparedRow {
    /// The reply to an upload of one row with this seed. Nothing is left of the state, whatever the
    /// upload is.
    pub fn answer(self, upload: &[u8]) -> Result<Vec<u8>, EvaluationError> {
        let Self { evaluator, key, seed, execution, state } = self;
        let (header, row) = upload
            .split_first_chunk::<UPLOAD_HEADER_BYTES>()
            .ok_or_else(|| refused(UploadError::Format))?;
        evaluator.header(1, &key).check(header).map_err(refused)?;
        if header[10] != SeedSource::Ahead as u8 || !row.starts_with(&seed) {
            return Err(refused(UploadError::Other("ticket")));
        }
        let parameters = evaluator.parameters();
        if row.len() != row_len(parameters) {
            return Err(refused(UploadError::Format));
        }
        let digest = Domain::Upload.hasher().chain_update(header).chain_update(row).finalize();
        let word_bits = parameters.word_bits;
        let header = ReplyHeader { word_bits, rows: 1, execution, upload: digest.into() };
        let mut reply = header.to_bytes().to_vec();
        reply.reserve(reply_row_len(parameters) + size_of_val(&header.upload));
        let answered = evaluator.machine.answer(state, &row[SEED_BYTES..], &mut reply);
        answered.map_err(|error| refused(UploadError::Words { row: 0, error }))?;
        seal(&mut reply);
        Ok(reply)
    }
}
