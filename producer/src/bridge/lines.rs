//! Lines of JSON: events on standard input, scores on standard output, dead letters in a file.
//!
//! Nobody can be told that a line was read, so that a bridge that is killed is begun again with all
//! lines: scores of the same event have the same key.

mod sink;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use cipherscore_common::broker::{Settled, Settling};
use cipherscore_common::message::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use self::sink::LineSink;
use super::record::{
    Arrival, Claim, DeadLetterSink, DeadReason, EndError, Ended, EventSource, FromSource, Record,
    Waiting,
};
use crate::blocking::blocking;

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
                    Ok(FromSource::Event(Arrival { record, claim: Box::new(NobodyToTell) }))
                }
                Some(Err(error)) => Err(EndError::Gone(error.to_string())),
                None => Ok(FromSource::End),
            }
        })
    }
}

/// A line is never told anything.
struct NobodyToTell;

impl Claim for NobodyToTell {
    fn settle(self: Box<Self>, _: &Ended) -> Settling {
        Box::pin(async { Ok(Settled::Told) })
    }
}

/// Dead letters, a line each: `code`, `reason`, and the event as text, or in hexadecimal digits where
/// it is no UTF-8; with `id`, `content_type` and `headers` where it has any.
pub struct LineLetters {
    file: Arc<Mutex<LetterFile>>,
}

/// The file of dead letters. Terminals and pipes can stand in for it: they are not read, nor synced.
struct LetterFile {
    file: File,
    is_regular: bool,
}

impl LetterFile {
    /// A line is on the disk when this returns. A torn line before it, of this run or of one that was
    /// killed, keeps a line of its own.
    fn write(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        if self.is_regular && !self.ends_with_line()? {
            line.insert(0, b'\n');
        }
        self.file.write_all(&line)?;
        match self.is_regular {
            true => self.file.sync_data(),
            false => self.file.flush(),
        }
    }

    fn ends_with_line(&mut self) -> io::Result<bool> {
        if self.file.metadata()?.len() == 0 {
            return Ok(true);
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        Ok(last == *b"\n")
    }
}

impl LineLetters {
    /// Adds to a file, which is made for its owner only: events are clear.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A pipe that is opened for both is never without a reader.
        let is_other = path.metadata().is_ok_and(|found| !found.is_file());
        let mut options = OpenOptions::new();
        options.append(true).create(true).read(!is_other);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        // Its name is on the disk before a letter is.
        #[cfg(unix)]
        if !is_other {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let file = LetterFile { file, is_regular: !is_other };
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    async fn write(&self, line: Vec<u8>) -> Result<(), EndError> {
        let file = Arc::clone(&self.file);
        let written = beside(move || file.lock().write(line)).await;
        written.map_err(|error| match is_full(&error) {
            // Somebody makes room.
            true => EndError::Away(error.to_string()),
            false => EndError::Gone(error.to_string()),
        })
    }
}

/// Writes on a thread that may wait: disks and whoever reads may be slow.
async fn beside(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    blocking(write).await.map_err(io::Error::other)?
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl DeadLetterSink for LineLetters {
    fn keep<'a>(
        &'a self,
        event: &'a Record,
        reason: &'a DeadReason,
    ) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(self.write(letter(event, reason).to_string().into_bytes()))
    }
}

fn letter(event: &Record, reason: &DeadReason) -> Value {
    let (name, text) = match std::str::from_utf8(&event.body) {
        Ok(text) => ("event", text.to_owned()),
        Err(_) => ("event_hex", hex::encode(&event.body)),
    };
    let mut line = json!({ "code": reason.code.as_str(), "reason": reason.text });
    line[name] = Value::String(text);
    for (name, text) in [("id", &event.id), ("content_type", &event.content_type)] {
        if let Some(text) = text {
            line[name] = Value::String(text.clone());
        }
    }
    if !event.headers.is_empty() {
        let header = |(name, value): (&String, &HeaderValue)| {
            let value = match value {
                HeaderValue::Text(text) => Value::String(text.clone()),
                HeaderValue::Integer(number) => (*number).into(),
            };
            (name.clone(), value)
        };
        line["headers"] = Value::Object(event.headers.iter().map(header).collect());
    }
    line
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

    #[tokio::test]
    async fn a_dead_letter_has_its_headers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        let event = Record {
            content_type: Some("application/json".into()),
            headers: [
                ("cloudEvents_id".to_owned(), "1".into()),
                ("retries".to_owned(), HeaderValue::Integer(3)),
            ]
            .into(),
            body: b"{}".to_vec(),
            ..Record::default()
        };
        let reason = DeadReason::new(DeadCode::Unreadable, "why");
        LineLetters::open(&path).unwrap().keep(&event, &reason).await.unwrap();
        let line: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(line["headers"], json!({ "cloudEvents_id": "1", "retries": 3 }));
        assert_eq!(line["content_type"], "application/json");
        assert!(line.get("id").is_none());
    }

    #[tokio::test]
    async fn a_torn_letter_keeps_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        std::fs::write(&path, "{\"code\": \"unre").unwrap();
        let letters = LineLetters::open(&path).unwrap();
        let reason = DeadReason::new(DeadCode::Unreadable, "why");
        for _ in 0..2 {
            letters.keep(&Record::default(), &reason).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
        assert_eq!((text.lines().count(), text.lines().filter(whole).count()), (3, 2), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_is_waited_for() {
        let letters = LineLetters::open(Path::new("/dev/full")).unwrap();
        let reason = DeadReason::new(DeadCode::Unreadable, "why");
        let kept = letters.keep(&Record::default(), &reason).await;
        assert!(matches!(kept, Err(EndError::Away(_))), "{kept:?}");
    }
}
