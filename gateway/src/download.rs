//! Blobs on their way out: a chunk at a time, to the end only if the digest of all is right.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::IntoHeaderName;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use cipherscore_common::broker::Broker;
use cipherscore_common::{
    BlobInfo, BlobName, BlobReader, BlobStore, CHUNK_BYTES, GatewayStore, StoreError,
};
use futures_util::stream;
use tokio::sync::mpsc;
use tracing::warn;

use crate::limits::Transfer;
use crate::order::{PAYLOAD_SHA256, text};
use crate::problem::{Problem, ProblemCode};
use crate::shared::Shared;

/// Size of a blob, in bytes.
pub(crate) const BYTES: &str = "cs-bytes";
/// Seconds until a blob is gone.
pub(crate) const EXPIRES_IN: &str = "cs-expires-in";
/// Version of the program that put a blob into the store.
pub(crate) const CREATED_BY: &str = "cs-created-by";
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const CHUNK: u64 = CHUNK_BYTES as u64;

/// What the pieces of a body come through: one waits while one is on its way.
pub(crate) type Pieces = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// A body whose pieces somebody sends, who has the turn of a transfer until the last one is taken.
pub(crate) fn sent_body() -> (Pieces, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let next = |mut receiver: mpsc::Receiver<_>| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    };
    (sender, Body::from_stream(stream::unfold(receiver, next)))
}

/// The end of a body that cannot be ended well: its connection breaks off.
pub(crate) async fn cut(pieces: &Pieces, error: &StoreError) {
    warn!(reason = %error, "an answer was cut off");
    let _ = pieces.send(Err(std::io::Error::other("cut off"))).await;
}

/// The first bytes of a blob are left out where they are not wanted.
pub(crate) async fn send_whole<S: BlobStore>(
    store: &S,
    name: &BlobName,
    leave_out: usize,
    pieces: Pieces,
) {
    let sent = async {
        let mut reader = BlobReader::open(store, name).await?;
        let mut leave_out = leave_out;
        while let Some(mut chunk) = reader.next_chunk().await? {
            chunk.drain(..leave_out.min(chunk.len()));
            leave_out = 0;
            if pieces.send(Ok(chunk.into())).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = sent.await {
        cut(&pieces, &error).await;
    }
}

/// Some bytes of a blob, of which each chunk has the right length; who reads them checks digests.
async fn send_range<S: BlobStore>(store: &S, info: &BlobInfo, range: Span, pieces: Pieces) {
    for index in range.first / CHUNK..=range.last / CHUNK {
        let chunk = match store.chunk(info, index).await {
            Ok(chunk) => Bytes::from(chunk),
            Err(error) => return cut(&pieces, &error).await,
        };
        let start = index * CHUNK;
        let bound = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        let (from, to) = (bound(range.first), bound(range.last + 1).min(CHUNK_BYTES));
        if from > to || to > chunk.len() {
            let reason = StoreError::NotFound { name: info.name.clone() };
            return cut(&pieces, &reason).await;
        }
        if pieces.send(Ok(chunk.slice(from..to))).await.is_err() {
            return;
        }
    }
}

/// The bytes `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

/// Which bytes are asked for; none: all of them. What is no range of one span is passed over, as RFC 9110
/// wants it.
fn range_of(headers: &HeaderMap, bytes: u64) -> Result<Option<Span>, Problem> {
    let Some(range) = text(headers, RANGE.as_str())? else { return Ok(None) };
    let span = range.strip_prefix("bytes=").and_then(|span| span.split_once('-'));
    let Some((first, last)) = span else { return Ok(None) };
    let number = |text: &str| text.parse::<u64>().ok();
    let span = match (first, last) {
        ("", last) => number(last).map(|most| (bytes.saturating_sub(most), bytes - 1)),
        (first, "") => number(first).map(|first| (first, bytes - 1)),
        (first, last) => number(first).zip(number(last)),
    };
    let Some((first, last)) = span else { return Ok(None) };
    let last = last.min(bytes - 1);
    match first <= last {
        true => Ok(Some(Span { first, last })),
        false => Err(Problem::new(ProblemCode::Range, format!("there are {bytes} bytes"))),
    }
}

/// What headers say of a blob.
pub(crate) fn describe(info: &BlobInfo, headers: &mut HeaderMap) {
    headers.insert(BYTES, info.bytes.into());
    if let Some(left) = info.expires_in {
        headers.insert(EXPIRES_IN, left.as_secs().into());
    }
    if let Ok(version) = HeaderValue::from_str(&info.created_by) {
        headers.insert(CREATED_BY, version);
    }
    insert(headers, PAYLOAD_SHA256, &info.sha256.to_string());
}

/// Inserts what can be a header.
pub(crate) fn insert(headers: &mut HeaderMap, name: impl IntoHeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Answers with a blob, or a span of it.
    pub(crate) async fn download(
        self: &Arc<Self>,
        name: BlobName,
        asked: &HeaderMap,
        turn: Option<Transfer>,
    ) -> Result<Response<Body>, Problem> {
        let info = self.store.info(&name).await?;
        let range = range_of(asked, info.bytes)?;
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        describe(&info, headers);
        headers.insert(CONTENT_TYPE, OCTET_STREAM);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let length = range.map_or(info.bytes, |range| range.last - range.first + 1);
        headers.insert(CONTENT_LENGTH, length.into());
        if let Some(Span { first, last }) = range {
            let range = format!("bytes {first}-{last}/{}", info.bytes);
            insert(headers, CONTENT_RANGE, &range);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        // Without a turn, only the head is asked for.
        let Some(turn) = turn else { return Ok(response) };
        let (pieces, body) = sent_body();
        *response.body_mut() = body;
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            match range {
                None => send_whole(&shared.store, &name, 0, pieces).await,
                Some(range) => send_range(&shared.store, &info, range, pieces).await,
            }
            drop(turn);
        });
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn ranges_are_of_one_span() {
        let range = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            range_of(&headers, 100)
        };
        let span = |first, last| Some(Span { first, last });
        for (text, expected) in [
            ("bytes=0-9", span(0, 9)),
            ("bytes=90-200", span(90, 99)),
            ("bytes=90-", span(90, 99)),
            ("bytes=-5", span(95, 99)),
            ("bytes=-500", span(0, 99)),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=a-b", None),
        ] {
            assert_eq!(range(text).unwrap(), expected, "{text}");
        }
        for wrong in ["bytes=100-", "bytes=7-6", "bytes=-0"] {
            assert_eq!(range(wrong).unwrap_err().code(), Some(ProblemCode::Range), "{wrong}");
        }
        assert_eq!(range_of(&HeaderMap::new(), 100).unwrap(), None);
    }
}
