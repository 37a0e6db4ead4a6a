//! Lines of JSON: events on standard input, scores on standard output, dead letters in a file.
//!
//! Nobody can be told that a line was read, so that a bridge that is killed is begun again with all
//! lines: scores of the same event have the same key.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use cipherscore_common::broker::{Disposition, Settle, Settled, Settlement, Settling};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::record::{
    Arrival, DeadLetterSink, DeadReason, EndError, EventSource, FromSource, Record, ScoreSink,
    Waiting,
};

/// Lines that are read ahead.
const AHEAD: usize = 64;

/// Lines of an input, each an event.
pub struct LineSource {
    lines: mpsc::Receiver<io::Result<Vec<u8>>>,
}

impl LineSource {
    /// Reads on a thread of its own, which ends with the input. Of a line that is longer than
    /// `max_bytes` so many and one more are kept.
    pub fn new(input: impl Read + Send + 'static, max_bytes: usize) -> Self {
        let (sender, lines) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            let mut input = BufReader::new(input);
            loop {
                let line = match read_line(&mut input, max_bytes) {
                    Ok(None) => return,
                    Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
                    Ok(Some(line)) => Ok(line),
                    Err(error) => Err(error),
                };
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    return;
                }
            }
        });
        Self { lines }
    }
}

/// A line without its end; none at the end of the input. What is too long is passed over.
fn read_line(input: &mut impl BufRead, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut is_any) = (Vec::new(), false);
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(is_any.then_some(line));
        }
        is_any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = end.unwrap_or(buffer.len());
        // One more than is allowed, so that it is seen to be too long.
        let wanted = (max_bytes + 1).saturating_sub(line.len()).min(part);
        line.extend_from_slice(&buffer[..wanted]);
        input.consume(end.map_or(part, |end| end + 1));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

impl EventSource for LineSource {
    fn next(&mut self) -> Waiting<'_, Result<FromSource, EndError>> {
        Box::pin(async move {
            match self.lines.recv().await {
                Some(Ok(body)) => {
                    let record = Record { body, ..Record::default() };
                    let settlement = Settlement::new(NobodyToTell);
                    Ok(FromSource::Event(Arrival { record, settlement }))
                }
                Some(Err(error)) => Err(EndError::Gone(error.to_string())),
                None => Ok(FromSource::End),
            }
        })
    }
}

/// A line is never told anything.
struct NobodyToTell;

impl Settle for NobodyToTell {
    fn settle(self: Box<Self>, _: Disposition) -> Settling {
        Box::pin(async { Ok(Settled::Told) })
    }
}

/// Scores, a line each.
pub struct LineSink {
    output: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl LineSink {
    /// Writes to this output; each line is there, or on its way to whoever reads, when it counts as
    /// written.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self { output: Arc::new(Mutex::new(Box::new(output))) }
    }

    /// On a thread that may wait: whoever reads may be slow.
    async fn write(&self, mut line: Vec<u8>) -> Result<(), EndError> {
        line.push(b'\n');
        let output = Arc::clone(&self.output);
        let written = tokio::task::spawn_blocking(move || {
            let mut output = output.lock();
            output.write_all(&line).and_then(|()| output.flush())
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            // A line may be there in part: whoever reads it must not take more for whole.
            Ok(Err(error)) => Err(EndError::Gone(error.to_string())),
            Err(error) => Err(EndError::Gone(error.to_string())),
        }
    }
}

impl ScoreSink for LineSink {
    fn put<'a>(&'a self, score: &'a Record) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(self.write(score.body.clone()))
    }
}

/// Dead letters, a line each: `code`, `reason`, and the event as text, or in hexadecimal digits where
/// it is no UTF-8.
pub struct LineLetters(LineSink);

impl LineLetters {
    /// Adds to a file, which is made for its owner only: events are clear.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(LineSink::new(append(path)?)))
    }
}

#[cfg(unix)]
fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl DeadLetterSink for LineLetters {
    fn keep<'a>(
        &'a self,
        event: &'a Record,
        reason: &'a DeadReason,
    ) -> Waiting<'a, Result<(), EndError>> {
        let (name, text) = match std::str::from_utf8(&event.body) {
            Ok(text) => ("event", text.to_owned()),
            Err(_) => ("event_hex", hex::encode(&event.body)),
        };
        let mut line = json!({ "code": reason.code.as_str(), "reason": reason.text });
        line[name] = Value::String(text);
        if let Some(id) = &event.id {
            line["id"] = Value::String(id.clone());
        }
        Box::pin(self.0.write(line.to_string().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::record::DeadCode;

    #[test]
    fn lines_are_read_whole_or_known_to_be_too_long() {
        let input = b"{}\n\n0123456789\n01234\r\nend".as_slice();
        let mut input = BufReader::with_capacity(4, input);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input, 6).unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["{}", "", "0123456", "01234\r", "end"]);
    }

    #[tokio::test]
    async fn a_source_passes_over_empty_lines_and_ends() {
        let mut source = LineSource::new(b"{\"id\":1}\n \r\n\n2".as_slice(), 100);
        let mut bodies = Vec::new();
        while let FromSource::Event(arrival) = source.next().await.unwrap() {
            bodies.push(arrival.record.body);
        }
        assert_eq!(bodies, [b"{\"id\":1}".to_vec(), b"2".to_vec()]);
    }

    #[tokio::test]
    async fn dead_letters_keep_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        for body in [b"{\"id\": \"\xc3\xb6\"".as_slice(), b"\xff\x00"] {
            let letters = LineLetters::open(&path).unwrap();
            let event = Record { body: body.to_vec(), ..Record::default() };
            let reason = DeadReason::new(DeadCode::Unreadable, "why");
            letters.keep(&event, &reason).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0]["event"], "{\"id\": \"\u{f6}\"");
        assert_eq!(
            (&lines[1]["event_hex"], &lines[1]["code"]),
            (&json!("ff00"), &json!("unreadable"))
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
