//! A private Redis.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::WatchedProcess;
use crate::{TestbedError, install, io_error};

const PROGRAM: &str = "redis-server";
const PACKAGE: &str = "redis-server";
/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one PING may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two PINGs.
const PING_INTERVAL: Duration = Duration::from_millis(10);
/// Starts on other ports, when somebody else took the free port first.
const START_ATTEMPTS: usize = 5;
/// How much of the log is shown, in characters.
const SHOWN_CHARACTERS: usize = 1000;

/// A Redis server of our own: nothing on disk, nothing evicted, a random password, loopback only.
#[derive(Debug)]
pub struct Redis {
    process: Option<WatchedProcess>,
    port: u16,
    password: String,
    folder: TempDir,
}

impl Redis {
    /// Starts a server, after installing it if need be, and waits until it answers.
    pub fn start() -> Result<Self, TestbedError> {
        install::require(PROGRAM, PACKAGE)?;
        let mut failure = None;
        for _ in 0..START_ATTEMPTS {
            let folder = tempfile::Builder::new().prefix("cipherscore-redis-").tempdir();
            let folder = folder.map_err(io_error("making a folder for Redis"))?;
            let port = free_port().map_err(io_error("finding a free port"))?;
            let password = random_password().map_err(io_error("making a password"))?;
            let mut redis = Self { process: None, port, password, folder };
            match redis.restart() {
                Ok(()) => return Ok(redis),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(TestbedError::Missing { program: PROGRAM, package: PACKAGE }))
    }

    /// How to connect, password included.
    pub fn url(&self) -> String {
        self.url_with_password(&self.password)
    }

    /// How to connect with another password.
    pub fn url_with_password(&self, password: &str) -> String {
        format!("redis://:{password}@127.0.0.1:{}", self.port)
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Process id of the running server.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(WatchedProcess::id)
    }

    /// Ends the server at once, by SIGKILL. What it held is lost.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends the server and starts it again, empty, on the same port with the same password.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        self.kill();
        let program = install::require(PROGRAM, PACKAGE)?;
        let file = self.folder.path().join("redis.conf");
        std::fs::write(&file, self.configuration()).map_err(io_error("writing redis.conf"))?;
        let process = WatchedProcess::start(program.as_os_str(), &[file.as_os_str()]);
        self.process = Some(process.map_err(io_error("starting redis-server"))?);
        self.wait_until_it_answers()
    }

    /// Stops the server by SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<(), TestbedError> {
        self.signal("STOP")
    }

    /// Lets a paused server go on.
    pub fn resume(&self) -> Result<(), TestbedError> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<(), TestbedError> {
        self.process
            .as_ref()
            .map_or(Ok(()), |process| process.signal(name))
            .map_err(io_error("sending a signal to redis-server"))
    }

    /// In a file of the private folder: a command line would show the password to everybody.
    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "bind 127.0.0.1\nport {}\nrequirepass {}\ndir {folder}\nlogfile {folder}/redis.log\n\
             daemonize no\nsave \"\"\nappendonly no\nmaxmemory-policy noeviction\n",
            self.port, self.password
        )
    }

    fn wait_until_it_answers(&mut self) -> Result<(), TestbedError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            let ended = self.process.as_mut().is_none_or(WatchedProcess::has_ended);
            // A stranger on our port does not know the password.
            match self.ping() {
                Ok(()) if !ended => return Ok(()),
                _ if ended => break,
                _ => std::thread::sleep(PING_INTERVAL),
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("redis.log"));
        let log = log.unwrap_or_default();
        let start = log.char_indices().rev().nth(SHOWN_CHARACTERS).map_or(0, |(index, _)| index);
        Err(TestbedError::Silent { program: PROGRAM, log: log[start..].trim().to_owned() })
    }

    fn ping(&self) -> io::Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, PING_TIMEOUT)?;
        stream.set_read_timeout(Some(PING_TIMEOUT))?;
        stream.write_all(format!("AUTH {}\r\nPING\r\n", self.password).as_bytes())?;
        let mut lines = BufReader::new(stream.take(1024)).lines();
        let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
        match (line()?.as_str(), line()?.as_str()) {
            ("+OK", "+PONG") => Ok(()),
            (first, second) => Err(io::Error::other(format!("{first} {second}"))),
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn random_password() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
