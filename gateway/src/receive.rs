//! Bodies of requests, as they arrive: bounded in size and in time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::config::GatewaySection;
use crate::problem::{Problem, ProblemCode};

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long it may pause, and how long it may take besides its bytes.
    pub(crate) pause: Duration,
    /// Bytes a second that it must have.
    pub(crate) bytes_per_second: u64,
}

impl Pace {
    pub(crate) fn of(section: &GatewaySection) -> Self {
        let bytes_per_second = section.min_body_rate.as_u64().max(1);
        Self { pause: section.body_timeout, bytes_per_second }
    }
}

/// A body on its way.
pub(crate) struct Incoming {
    body: Body,
    limit: u64,
    pace: Pace,
    began: Instant,
    received: u64,
}

impl Incoming {
    /// Looks at what the head says of the body.
    pub(crate) fn new(
        headers: &HeaderMap,
        body: Body,
        limit: u64,
        pace: Pace,
    ) -> Result<Self, Problem> {
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            let detail = "bodies are sent as they are, without Content-Encoding";
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
        }
        let incoming = Self { body, limit, pace, began: Instant::now(), received: 0 };
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length > limit => Err(incoming.too_large()),
            _ => Ok(incoming),
        }
    }

    /// The next piece, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            // A body that is sent at the slowest pace ends in this time.
            let earned = Duration::from_secs(self.received / self.pace.bytes_per_second);
            let end = self.began + self.pace.pause + earned;
            let end = end.min(Instant::now() + self.pace.pause);
            let slow = |_| {
                let least = self.pace.bytes_per_second;
                let detail = format!("it paused, or came with less than {least} bytes a second");
                Problem::new(ProblemCode::TooSlow, detail)
            };
            let Some(frame) = timeout_at(end, self.body.frame()).await.map_err(slow)? else {
                return Ok(None);
            };
            let broken = |_| Problem::malformed("the body ended before its end");
            // What is no data are trailers.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            self.received += data.len() as u64;
            if self.received > self.limit {
                return Err(self.too_large());
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// All of it, for bodies of which that is not much.
    pub(crate) async fn all(mut self) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn too_large(&self) -> Problem {
        let detail = format!("the body has more than {} bytes, which are allowed", self.limit);
        Problem::new(ProblemCode::TooLarge, detail)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use futures_util::StreamExt as _;
    use futures_util::stream;

    use super::*;

    const PACE: Pace = Pace { pause: Duration::from_secs(10), bytes_per_second: 100 };

    fn code<T>(result: Result<T, Problem>) -> ProblemCode {
        result.err().unwrap().code().unwrap()
    }

    /// Pieces of ten bytes, with a pause before each.
    fn dripping(pieces: usize, pause: Duration) -> Body {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(vec![7; 10])
        });
        Body::from_stream(pieces)
    }

    async fn all(body: Body, limit: u64) -> Result<Vec<u8>, Problem> {
        Incoming::new(&HeaderMap::new(), body, limit, PACE)?.all().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_size() {
        assert_eq!(all(Body::from("12345"), 5).await.unwrap(), b"12345");
        assert_eq!(code(all(Body::from("123456"), 5).await), ProblemCode::TooLarge);
        assert_eq!(all(Body::empty(), 5).await.unwrap(), b"");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 6.into());
        let said = Incoming::new(&headers, dripping(1, Duration::MAX), 5, PACE);
        assert_eq!(code(said), ProblemCode::TooLarge);
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let said = Incoming::new(&headers, Body::empty(), 50, PACE);
        assert_eq!(code(said), ProblemCode::UnsupportedMediaType);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_time() {
        let seconds = Duration::from_secs;
        let half_sent = stream::iter([Ok::<_, std::io::Error>(vec![1])]).chain(stream::pending());
        assert_eq!(code(all(Body::from_stream(half_sent), 99).await), ProblemCode::TooSlow);
        // Never a pause, and yet too slow: ten bytes a second.
        assert_eq!(code(all(dripping(1000, seconds(1)), 99_999).await), ProblemCode::TooSlow);
        let fast = Duration::from_millis(90);
        assert_eq!(all(dripping(1000, fast), 99_999).await.unwrap().len(), 10_000);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_body() {
        let cut = stream::iter([Ok(vec![1]), Err(std::io::Error::other("reset"))]);
        assert_eq!(code(all(Body::from_stream(cut), 99).await), ProblemCode::Malformed);
    }
}
