//! Scores, a line each.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use crate::bridge::record::{EndError, Record, ScoreSink, Waiting};

/// Lines that are written, and synced, at once, at most.
const GROUP_LINES: usize = 4096;

/// Makes what was written safe.
type Sync = Box<dyn FnMut() -> io::Result<()> + Send>;

/// A line that is to be written, and who waits for it.
struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<Result<(), String>>,
}

/// Scores, a line each.
pub struct LineSink {
    lines: Sender<Line>,
}

impl LineSink {
    /// Writes to this output; each line is with the system, or on its way to whoever reads, when it
    /// counts as written. After a line that was not written whole there is no other.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self::start(output, Box::new(|| Ok(())))
    }

    /// Writes to standard output. Where that is a file, each line is on the disk when it counts as
    /// written.
    pub fn stdout() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            match output.metadata()?.is_file() {
                true => Self::of_file(output),
                false => Ok(Self::new(output)),
            }
        }
        #[cfg(not(unix))]
        Ok(Self::new(io::stdout()))
    }

    /// Writes to a file; each line is on the disk when it counts as written.
    fn of_file(output: File) -> io::Result<Self> {
        let same = output.try_clone()?;
        Ok(Self::start(output, Box::new(move || same.sync_data())))
    }

    /// Writes on a thread of its own, which ends with this. Lines that come while it writes are written
    /// together, since a disk takes as long for one as for many.
    fn start(output: impl Write + Send + 'static, sync: Sync) -> Self {
        let (lines, taken) = channel();
        let output = Output { writer: Box::new(output), sync, is_torn: false };
        std::thread::spawn(move || write_lines(&taken, output));
        Self { lines }
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), EndError> {
        let (written, is_written) = oneshot::channel();
        let gone = |_| EndError::Gone("nothing writes any more".into());
        self.lines.send(Line { bytes: bytes.to_vec(), written }).map_err(|_| gone(()))?;
        // A line may be there in part: whoever reads it must not take more for whole.
        is_written.await.map_err(|_| gone(()))?.map_err(EndError::Gone)
    }
}

impl ScoreSink for LineSink {
    fn put<'a>(&'a self, score: &'a Record) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(self.write(&score.body))
    }
}

/// An output of which every line is whole.
struct Output {
    writer: Box<dyn Write + Send>,
    sync: Sync,
    /// The last line is there in part, or may be: another one would be glued to it.
    is_torn: bool,
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            return Err(io::Error::other("a line before was not written whole"));
        }
        self.is_torn = true;
        self.writer.write_all(lines)?;
        self.writer.flush()?;
        (self.sync)()?;
        self.is_torn = false;
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Line>, mut output: Output) {
    while let Ok(first) = lines.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_LINES {
            let Ok(line) = lines.try_recv() else { break };
            group.push(line);
        }
        let mut bytes = Vec::new();
        for line in &group {
            bytes.extend_from_slice(&line.bytes);
            bytes.push(b'\n');
        }
        let written = output.write(&bytes).map_err(|error| error.to_string());
        for line in group {
            // Whoever waits no longer has ended.
            _ = line.written.send(written.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    fn score() -> Record {
        Record { body: b"{}".to_vec(), ..Record::default() }
    }

    /// Writes a byte, fails once, and writes everything from then on.
    struct FullForAMoment(Arc<Mutex<Vec<u8>>>, usize);

    impl Write for FullForAMoment {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            let count = match self.1 {
                1 => 1,
                2 => return Err(io::ErrorKind::StorageFull.into()),
                _ => bytes.len(),
            };
            self.0.lock().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn nothing_follows_a_torn_score() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = LineSink::new(FullForAMoment(Arc::clone(&written), 0));
        for _ in 0..2 {
            assert!(matches!(sink.put(&score()).await, Err(EndError::Gone(_))));
        }
        assert_eq!(*written.lock(), b"{");
    }

    #[tokio::test]
    async fn a_line_counts_when_it_is_on_the_disk() {
        let (file, failing) = (tempfile::tempfile().unwrap(), Arc::new(Mutex::new(false)));
        let (mut read, fails) = (file.try_clone().unwrap(), Arc::clone(&failing));
        let sync = move || match *fails.lock() {
            true => Err(io::Error::other("the disk is gone")),
            false => Ok(()),
        };
        let sink = LineSink::start(file, Box::new(sync));
        sink.put(&score()).await.unwrap();
        *failing.lock() = true;
        for reason in ["the disk is gone", "not written whole"] {
            let put = sink.put(&score()).await;
            assert!(put.is_err_and(|error| error.to_string().contains(reason)));
        }
        let mut text = String::new();
        io::Seek::rewind(&mut read).unwrap();
        io::Read::read_to_string(&mut read, &mut text).unwrap();
        assert_eq!(text, "{}\n{}\n");
    }

    #[tokio::test]
    async fn lines_of_a_file_keep_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = LineSink::of_file(file.reopen().unwrap()).unwrap();
        for number in 0..100 {
            let body = number.to_string().into_bytes();
            sink.put(&Record { body, ..Record::default() }).await.unwrap();
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.lines().eq((0..100).map(|number| number.to_string())));
    }
}
