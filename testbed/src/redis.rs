//! A private Redis.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

use crate::tls::Tls;
use crate::watched::{Server, WatchedProcess, printed};
use crate::{TestbedError, fresh, install, io_error, tail};

const PROGRAM: &str = "redis-server";
const PACKAGE: &str = "redis-server";
const LOG: &str = "redis.log";
/// How long a start may take.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of an answer is read.
const MAX_ANSWER_BYTES: u64 = 1024;
/// Starts on other ports, when somebody else took the free port first.
const START_ATTEMPTS: usize = 5;

/// A Redis server of our own: nothing on disk unless asked for, nothing evicted, a random password, loopback only.
#[derive(Debug)]
pub struct Redis {
    process: Option<WatchedProcess>,
    port: u16,
    tls_port: u16,
    password: String,
    options: RedisOptions,
    /// The users added, as lines of the configuration.
    users: Vec<String>,
    folder: TempDir,
}

/// What differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// A TLS port beside the plain one.
    pub tls: Option<Tls>,
    /// Whether every write goes to a file, which is synchronised every second and read at the next
    /// start.
    pub append_only: bool,
}

impl Redis {
    /// Starts a server, after installing it if need be, and waits until it answers.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(RedisOptions::default())
    }

    /// Starts a server with options.
    pub fn start_with(options: RedisOptions) -> Result<Self, TestbedError> {
        install::require(PROGRAM, PACKAGE)?;
        let mut failure = None;
        for _ in 0..START_ATTEMPTS {
            let [port, tls_port] = fresh::ports()?;
            let mut redis = Self {
                process: None,
                port,
                tls_port,
                password: fresh::password()?,
                options: options.clone(),
                users: Vec::new(),
                folder: fresh::folder("cipherscore-redis-")?,
            };
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

    /// How to connect as another user. Nothing is percent-encoded.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// How to connect by TLS, password included, if there is a port for it.
    pub fn tls_url(&self) -> Option<String> {
        self.tls_url_for("", &self.password)
    }

    /// How to connect by TLS as another user. Nothing is percent-encoded.
    pub fn tls_url_for(&self, user: &str, password: &str) -> Option<String> {
        let port = self.options.tls.as_ref().map(|_| self.tls_port)?;
        Some(format!("rediss://{user}:{password}@127.0.0.1:{port}"))
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Process id of the running server.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(WatchedProcess::id)
    }

    /// Ends the server at once, by SIGKILL. What it held is lost, unless it writes a file.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends the server and starts it again, on the same ports with the same users; empty, unless it
    /// writes a file.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        self.kill();
        let program = install::require(PROGRAM, PACKAGE)?;
        let file = self.folder.path().join("redis.conf");
        std::fs::write(&file, self.configuration()).map_err(io_error("writing redis.conf"))?;
        let server = Server {
            program: &program,
            arguments: &[file.as_os_str()],
            folder: self.folder.path(),
            environment: None,
            variables: &[],
        };
        let process = WatchedProcess::start(&server).map_err(io_error("starting redis-server"))?;
        let process = self.process.insert(process);
        // A stranger on our port does not know the password.
        let question = || match ask(self.port, &self.password, &["PING"])?.as_str() {
            "+PONG" => Ok(()),
            other => Err(io::Error::other(other.to_owned())),
        };
        match process.answers(START_TIMEOUT, question) {
            true => Ok(()),
            false => {
                let log = tail(&printed(self.folder.path(), LOG));
                Err(TestbedError::Silent { program: PROGRAM, log })
            }
        }
    }

    /// Adds a user, or changes it. The rules are those of `ACL SETUSER`, such as `~key:*` and
    /// `+get`; without any, the user may do nothing. The user stays over restarts.
    pub fn add_user(
        &mut self,
        name: &str,
        password: &str,
        rules: &[&str],
    ) -> Result<(), TestbedError> {
        let password = format!(">{password}");
        let words = [&[name, "reset", "on", &password], rules].concat();
        let answer = ask(self.port, &self.password, &[&["ACL", "SETUSER"], &words[..]].concat());
        match answer.map_err(io_error("adding a user to Redis"))?.as_str() {
            "+OK" => {
                let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                let user = format!("user {} ", line[0]);
                self.users.retain(|other| !other.starts_with(&user));
                self.users.push(format!("user {}\n", line.join(" ")));
                Ok(())
            }
            other => Err(TestbedError::Refused { program: PROGRAM, reason: other.to_owned() }),
        }
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

    /// In a file of the private folder: a command line would show the passwords to everybody.
    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let mut text = format!(
            "bind 127.0.0.1\nport {}\nrequirepass {}\ndir {folder}\nlogfile {folder}/{LOG}\n\
             daemonize no\nsave \"\"\nappendonly {}\nappendfsync everysec\n\
             maxmemory-policy noeviction\n",
            self.port,
            self.password,
            if self.options.append_only { "yes" } else { "no" },
        );
        if let Some(Tls { certificates, require_client_certificate }) = &self.options.tls {
            text += &format!(
                "tls-port {}\ntls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\n\
                 tls-auth-clients {}\n",
                self.tls_port,
                certificates.authority().display(),
                certificates.server_certificate().display(),
                certificates.server_key().display(),
                if *require_client_certificate { "yes" } else { "no" },
            );
        }
        text + &self.users.concat()
    }
}

/// A word of the configuration, whatever is in it.
fn quoted(word: &str) -> String {
    let escape = |byte: u8| match byte {
        b'\\' | b'"' | ..=0x1F | 0x7F.. => format!("\\x{byte:02x}"),
        _ => char::from(byte).to_string(),
    };
    format!("\"{}\"", word.bytes().map(escape).collect::<String>())
}

/// Logs in, sends one command, and gives the first line of the answer.
fn ask(port: u16, password: &str, command: &[&str]) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut bytes = format!("AUTH {password}\r\n*{}\r\n", command.len());
    for word in command {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(bytes.as_bytes())?;
    let mut lines = BufReader::new(stream.take(MAX_ANSWER_BYTES)).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    match line()?.as_str() {
        "+OK" => line(),
        other => Err(io::Error::other(other.to_owned())),
    }
}
