//! Rows and outputs in files: what `encrypt` writes, `evaluate` reads and writes, and `decrypt`
//! reads.

use cipherscore_concrete::WireError;
use cipherscore_concrete::framing::{FramingError, frame_values, split_values};
use cipherscore_concrete::values::read_stored_value;
use cipherscore_engine::parameters::Gate;
use cipherscore_engine::rows::upload::is_row_upload;
use cipherscore_ids::{FormName, OwnerId};
use thiserror::Error;

use crate::content::{Content, OtherContent};
use crate::model::{RowsFile, RowsFileError, read_rows_file, write_rows_file};

/// Bytes of a file by which [`form_of_rows_file`] knows it.
pub const FORM_BYTES: usize = 64;

/// The form of the rows in a file, by its first bytes: none where they do not say it, as those of the
/// form for many rows at a time do not.
pub fn form_of_rows_file(start: &[u8]) -> Option<FormName> {
    let file = read_rows_file(start).ok()?;
    is_row_upload(file.body).then_some(FormName::Rows)
}

/// How the files of a form's jobs are made.
#[derive(Debug, Clone, PartialEq)]
pub enum FileForm {
    /// A file for each value of a row, as Concrete serialises it. A job is one row.
    Values {
        /// What a row's files must be, in their order.
        inputs: Vec<Gate>,
        /// Files of a row's outputs.
        outputs: usize,
    },
    /// A [file of rows](read_rows_file), and one of their outputs, for each job.
    Rows,
}

/// What the files of a job hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRows {
    /// How many rows.
    pub rows: u32,
    /// Under whose client key they are encrypted, where the files say it.
    pub owner: Option<OwnerId>,
    /// The body of the job.
    pub body: Vec<u8>,
}

/// Why files are not those of a job, or of some jobs.
#[derive(Debug, Error)]
pub enum FilesError {
    /// Too many or too few for whole rows.
    #[error(
        "{found_inputs} input and {found_outputs} output files, where each row needs {inputs} and \
         {outputs}: one for every input and output of the circuit, in their order"
    )]
    OfRows {
        /// Files of inputs that there are.
        found_inputs: usize,
        /// Files of outputs that there are.
        found_outputs: usize,
        /// Files of inputs that a row has.
        inputs: usize,
        /// Files of outputs that a row has.
        outputs: usize,
    },
    /// Not a file of outputs for each file of rows.
    #[error("{inputs} input and {outputs} output files; each input has one output")]
    OfJobs {
        /// Files of inputs that there are.
        inputs: usize,
        /// Files of outputs that there are.
        outputs: usize,
    },
    /// A file is something else.
    #[error("{reason}")]
    Content {
        /// Which of the files, from 0.
        index: usize,
        /// What it is.
        reason: OtherContent,
    },
    /// A file is not the value that it stands for.
    #[error("{reason}")]
    Value {
        /// Which of the row's files, from 0.
        index: usize,
        /// What is wrong with it.
        reason: WireError,
    },
    /// Not a file of rows.
    #[error(transparent)]
    Rows(#[from] RowsFileError),
    /// Outputs that are not values.
    #[error(transparent)]
    Outputs(#[from] FramingError),
}

impl FileForm {
    /// Files of the inputs and of the outputs of one job.
    pub fn files_of_job(&self) -> (usize, usize) {
        match self {
            Self::Values { inputs, outputs } => (inputs.len(), *outputs),
            Self::Rows => (1, 1),
        }
    }

    /// How many jobs so many files are.
    pub fn jobs(&self, found_inputs: usize, found_outputs: usize) -> Result<usize, FilesError> {
        let (inputs, outputs) = self.files_of_job();
        let jobs = found_inputs / inputs;
        if (found_inputs, found_outputs) == (jobs * inputs, jobs * outputs) {
            return Ok(jobs);
        }
        Err(match self {
            Self::Values { .. } => {
                FilesError::OfRows { found_inputs, found_outputs, inputs, outputs }
            }
            Self::Rows => FilesError::OfJobs { inputs: found_inputs, outputs: found_outputs },
        })
    }

    /// The form that such files have: that of one file of rows, or this one.
    pub fn found_in<F: AsRef<[u8]>>(&self, files: &[F]) -> Self {
        match files {
            [only] if read_rows_file(only.as_ref()).is_ok() => Self::Rows,
            _ => self.clone(),
        }
    }

    /// What the files of a job hold.
    pub fn read<F: AsRef<[u8]>>(&self, files: &[F]) -> Result<JobRows, FilesError> {
        for (index, file) in files.iter().enumerate() {
            let other = |reason| FilesError::Content { index, reason };
            Content::Ciphertexts.require(file.as_ref()).map_err(other)?;
        }
        match (self, files) {
            (Self::Values { inputs, .. }, files) => {
                for (index, (gate, file)) in inputs.iter().zip(files).enumerate() {
                    let value = read_stored_value(gate, file.as_ref());
                    value.map_err(|reason| FilesError::Value { index, reason })?;
                }
                Ok(JobRows { rows: 1, owner: None, body: frame_values(files) })
            }
            (Self::Rows, [only]) => {
                let RowsFile { rows, owner, body } = read_rows_file(only.as_ref())?;
                Ok(JobRows { rows, owner, body: body.to_vec() })
            }
            (Self::Rows, _) => Err(RowsFileError::Format.into()),
        }
    }

    /// The files of a job's outputs: of so many rows, under this owner's client key.
    pub fn write(
        &self,
        rows: u32,
        owner: Option<OwnerId>,
        outputs: &[u8],
    ) -> Result<Vec<Vec<u8>>, FilesError> {
        Ok(match self {
            Self::Values { .. } => split_values(outputs)?.into_iter().map(<[u8]>::to_vec).collect(),
            Self::Rows => {
                let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                vec![write_rows_file(rows, owner, outputs)?]
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_rows_is_a_job_and_its_outputs_another() {
        let form = FileForm::Rows;
        let owner = OwnerId::from_bytes([9; 16]);
        let file = write_rows_file(3, owner, b"ciphertexts").unwrap();
        let expected = JobRows { rows: 3, owner, body: b"ciphertexts".to_vec() };
        assert_eq!(form.read(&[&file]).unwrap(), expected);
        let outputs = write_rows_file(3, owner, b"outputs").unwrap();
        assert_eq!(form.write(3, owner, b"outputs").unwrap(), [outputs]);
        assert_eq!((form.jobs(2, 2).unwrap(), form.files_of_job()), (2, (1, 1)));
        assert!(matches!(form.jobs(2, 1), Err(FilesError::OfJobs { inputs: 2, outputs: 1 })));
        assert!(matches!(form.read(&[&b"something"[..]]), Err(FilesError::Rows(_))));
        assert!(matches!(form.read(&[&file, &file]), Err(FilesError::Rows(_))));
    }

    #[test]
    fn rows_say_their_form() {
        let owner = OwnerId::from_bytes([9; 16]);
        let form =
            |body: &str| form_of_rows_file(&write_rows_file(3, owner, body.as_bytes()).unwrap());
        assert_eq!(form("CSROWUPL and more"), Some(FormName::Rows));
        assert_eq!((form("CSROWUP"), form("anything")), (None, None));
        assert_eq!(form_of_rows_file("CSROWUPL".as_bytes()), None);
    }

    #[test]
    fn values_are_files_of_their_own_unless_they_come_as_a_file_of_rows() {
        let form = FileForm::Values { inputs: Vec::new(), outputs: 2 };
        let framed = frame_values([b"one", b"two"]);
        assert_eq!(form.write(1, None, &framed).unwrap(), [b"one", b"two"]);
        assert_eq!(form.found_in(&[&b"a value"[..]]), form);
        assert_eq!(form.found_in(&[write_rows_file(1, None, b"").unwrap()]), FileForm::Rows);
    }
}
