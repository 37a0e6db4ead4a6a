//! A process of ours, such as a worker.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::watched::{Server, WatchedProcess, printed};
use crate::{TestbedError, io_error};

/// A running process, which ends when this is dropped or when ours dies.
#[derive(Debug)]
pub struct Process {
    process: WatchedProcess,
    folder: TempDir,
}

impl Process {
    /// Starts a program in it with our environment and more variables of it.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, TestbedError> {
        let folder = tempfile::Builder::new().prefix("cipherscore-process-").tempdir();
        let folder = folder.map_err(io_error("making a folder for a process"))?;
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let (arguments, folder_path) = (&arguments[..], folder.path());
        let server =
            Server { program, arguments, folder: folder_path, environment: None, variables };
        let process = WatchedProcess::start(&server).map_err(io_error("starting a process"))?;
        Ok(Self { process, folder })
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// How it ended, when it has and no signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// What it has printed, on either output.
    pub fn printed(&self) -> String {
        printed(self.folder.path(), "")
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) -> Result<(), TestbedError> {
        self.process.signal(name).map_err(io_error("sending a signal to a process"))
    }

    /// Asks it to end by SIGTERM, and waits as long as it may take. Says whether it has.
    pub fn end(&mut self, timeout: Duration) -> Result<bool, TestbedError> {
        self.process.end(timeout).map_err(io_error("ending a process"))?;
        Ok(self.process.has_ended())
    }
}
