//! Forms (`multipart/form-data`) as they arrive.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::stream;
use multer::{Field, Multipart};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

use super::CmlError;
use crate::problem::{Problem, ProblemCode};
use crate::receive::Incoming;

/// A form on its way.
pub(super) struct Form {
    parts: Multipart<'static>,
    /// Why the body ended early, which the parser says in its own words only.
    problem: Arc<Mutex<Option<Problem>>>,
}

/// A field or a file of a form.
pub(super) struct Part {
    field: Field<'static>,
    name: String,
    problem: Arc<Mutex<Option<Problem>>>,
}

/// What FastAPI says of a field that is not there.
pub(super) fn missing(name: &str) -> Value {
    json!({ "type": "missing", "loc": ["body", name], "msg": "Field required", "input": null })
}

impl Form {
    pub(super) fn new(headers: &HeaderMap, body: Incoming) -> Result<Self, CmlError> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok());
        // Without a form, FastAPI misses its fields.
        let boundary = boundary.ok_or_else(|| CmlError::Form(missing("form")))?;
        let problem = Arc::new(Mutex::new(None));
        let said = Arc::clone(&problem);
        let pieces = stream::try_unfold(body, move |mut body| {
            let said = Arc::clone(&said);
            async move {
                match body.next().await {
                    Ok(piece) => Ok(piece.map(|piece| (piece, body))),
                    Err(problem) => {
                        *said.lock() = Some(problem);
                        Err(std::io::Error::other("the body ended early"))
                    }
                }
            }
        });
        Ok(Self { parts: Multipart::new(pieces, boundary), problem })
    }

    /// The next field, or `None` after the last. The one before must be at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, CmlError> {
        let field = self.parts.next_field().await.map_err(|error| broken(&self.problem, &error))?;
        Ok(field.map(|field| {
            let name = field.name().unwrap_or_default().to_owned();
            Part { field, name, problem: Arc::clone(&self.problem) }
        }))
    }
}

impl Part {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next piece, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CmlError> {
        self.field.chunk().await.map_err(|error| broken(&self.problem, &error))
    }

    /// All of it, if it has at most so many bytes.
    pub(super) async fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, CmlError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > limit {
                let detail = format!("{} has more than {limit} bytes", self.name.escape_default());
                return Err(Problem::new(ProblemCode::TooLarge, detail).into());
            }
        }
        Ok(bytes)
    }
}

fn broken(problem: &Mutex<Option<Problem>>, error: &multer::Error) -> CmlError {
    let said = problem.lock().take();
    said.unwrap_or_else(|| Problem::malformed(format!("the form: {error}"))).into()
}
