//! A private RabbitMQ.

mod configuration;
mod log_in;

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::tls::{Tls, write_private};
use crate::watched::{Server, WatchedProcess, printed};
use crate::{TestbedError, complaint, fresh, install, io_error, tail};

/// Not the one on the path: Debian's is a wrapper that becomes the user `rabbitmq`.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const PACKAGE: &str = "rabbitmq-server";
/// How long a start may take. On two idle cores it takes five seconds.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// How long an orderly end may take. It takes one second.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Starts on other ports, when somebody else took a free port first.
const START_ATTEMPTS: usize = 5;

/// A RabbitMQ node of our own: loopback only, one user with a random password, and no `epmd`. Its
/// data lives in a private folder until the value is dropped.
///
/// Whatever goes through `rabbitmqctl` ([`ctl`](Self::ctl) and the methods that say so) starts an
/// Erlang runtime, which takes half a second of a processor.
#[derive(Debug)]
pub struct RabbitMq {
    process: Option<WatchedProcess>,
    ports: Ports,
    /// Of the Erlang node.
    name: String,
    password: String,
    options: RabbitMqOptions,
    folder: TempDir,
}

/// What differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct RabbitMqOptions {
    /// Lines for the end of `rabbitmq.conf`, such as `consumer_timeout = 15000`.
    pub configuration: Vec<String>,
    /// How often a channel looks for overdue acknowledgements; RabbitMQ's own is a minute. A
    /// `consumer_timeout` takes effect at the next look.
    pub channel_tick_interval: Option<Duration>,
    /// A TLS port beside the plain one.
    pub tls: Option<Tls>,
    /// Plugins that come with RabbitMQ, such as `rabbitmq_management`. Where they listen is theirs
    /// to say, by `configuration`.
    pub plugins: Vec<&'static str>,
}

/// A user of the virtual host `/`. The patterns are regular expressions; an empty one matches
/// nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct User<'a> {
    /// Of the user.
    pub name: &'a str,
    /// Of the user.
    pub password: &'a str,
    /// What it may declare and delete.
    pub configure: &'a str,
    /// Where it may publish.
    pub write: &'a str,
    /// What it may consume, and bind to.
    pub read: &'a str,
    /// Such as `monitoring` or `impersonator`.
    pub tags: &'a [&'a str],
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    tls: u16,
    /// For `rabbitmqctl`.
    distribution: u16,
}

impl RabbitMq {
    /// Name of the user that [`url`](Self::url) names, an administrator.
    pub const USER: &'static str = "testbed";

    /// Starts a node, after installing it if need be, and waits until it lets its user in.
    pub fn start() -> Result<Self, TestbedError> {
        Self::start_with(RabbitMqOptions::default())
    }

    /// Starts a node with options.
    pub fn start_with(options: RabbitMqOptions) -> Result<Self, TestbedError> {
        install::require(PROGRAM, PACKAGE)?;
        let mut attempts = 1;
        loop {
            let [amqp, tls, distribution] = fresh::ports()?;
            let mut node = Self {
                process: None,
                ports: Ports { amqp, tls, distribution },
                name: format!("cipherscore-{}@localhost", fresh::password()?),
                password: fresh::password()?,
                options: options.clone(),
                folder: fresh::folder("cipherscore-rabbitmq-")?,
            };
            match node.restart() {
                Ok(()) => return Ok(node),
                Err(TestbedError::Silent { log, .. })
                    if log.contains("eaddrinuse") && attempts < START_ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How to connect, password included.
    pub fn url(&self) -> String {
        self.url_for(Self::USER, &self.password)
    }

    /// How to connect as another user. Nothing is percent-encoded.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@{}/%2f", self.address())
    }

    /// How to connect by way of another address, such as a [`Relay`](crate::Relay)'s.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://{}:{}@{address}/%2f", Self::USER, self.password)
    }

    /// How to connect by TLS, password included, if there is a port for it.
    pub fn tls_url(&self) -> Option<String> {
        self.tls_url_for(Self::USER, &self.password)
    }

    /// How to connect by TLS as another user. Nothing is percent-encoded.
    pub fn tls_url_for(&self, user: &str, password: &str) -> Option<String> {
        let port = self.options.tls.as_ref().map(|_| self.ports.tls)?;
        Some(format!("amqps://{user}:{password}@127.0.0.1:{port}/%2f"))
    }

    /// Where the plain port is.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp))
    }

    /// The password of [`USER`](Self::USER).
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Name of the Erlang node. All its processes have it in their environment.
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// Process id of the running node.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(WatchedProcess::id)
    }

    /// Ends the node at once, by SIGKILL. Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends the node in order, if it runs, and starts it again with its data, on the same ports.
    /// After [`kill`](Self::kill), this is how a broker comes back from a crash.
    pub fn restart(&mut self) -> Result<(), TestbedError> {
        if let Some(process) = &mut self.process
            && !process.has_ended()
        {
            process.end(END_TIMEOUT).map_err(io_error("ending rabbitmq-server"))?;
        }
        self.kill();
        let program = install::require(PROGRAM, PACKAGE)?;
        self.write_files().map_err(io_error("writing RabbitMQ's configuration"))?;
        let environment = self.environment();
        let server = Server {
            program: &program,
            arguments: &[],
            folder: self.folder.path(),
            environment: Some(&environment),
            variables: &[],
        };
        let process = WatchedProcess::start(&server).map_err(io_error("starting RabbitMQ"))?;
        let process = self.process.insert(process);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp));
        let tls = self.options.tls.as_ref().map(|_| (Ipv4Addr::LOCALHOST, self.ports.tls));
        let question = || {
            log_in::log_in(address, Self::USER, &self.password)?;
            // It begins to listen on one port after the other.
            tls.map_or(Ok(()), |tls| TcpStream::connect(tls).map(drop))
        };
        match process.answers(START_TIMEOUT, question) {
            true => Ok(()),
            false => {
                self.kill();
                let log = complaint(&printed(self.folder.path(), configuration::LOG));
                Err(TestbedError::Silent { program: PROGRAM, log })
            }
        }
    }

    /// Stops the node by SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<(), TestbedError> {
        self.signal("STOP")
    }

    /// Lets a paused node go on.
    pub fn resume(&self) -> Result<(), TestbedError> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<(), TestbedError> {
        self.process
            .as_ref()
            .map_or(Ok(()), |process| process.signal(name))
            .map_err(io_error("sending a signal to RabbitMQ"))
    }

    /// Adds a user, or changes it. It stays over restarts. By `rabbitmqctl`, but without showing
    /// the password on a command line.
    pub fn add_user(&self, user: &User<'_>) -> Result<(), TestbedError> {
        let definitions = json!({
            "users": [{ "name": user.name, "password": user.password, "tags": user.tags }],
            "permissions": [{
                "user": user.name,
                "vhost": "/",
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }],
        });
        let file = self.folder.path().join("user.json");
        let written = write_private(&file, &definitions.to_string());
        written.map_err(io_error("writing a user's definition"))?;
        let imported = self.import_definitions(&file);
        let removed = std::fs::remove_file(&file).map_err(io_error("removing a definition"));
        imported.and(removed)
    }

    /// Imports exchanges, queues, policies, users and so on from a JSON file. By `rabbitmqctl`.
    pub fn import_definitions(&self, file: &Path) -> Result<(), TestbedError> {
        let file = std::path::absolute(file).map_err(io_error("finding the definitions"))?;
        self.run_control(&["import_definitions".as_ref(), file.as_ref()]).map(drop)
    }

    /// Closes every client's connection, as an operator does. By `rabbitmqctl`.
    pub fn close_all_connections(&self, reason: &str) -> Result<(), TestbedError> {
        self.ctl(&["close_all_connections", reason]).map(drop)
    }

    /// Raises or clears the memory alarm, under which connections that publish are blocked. By
    /// `rabbitmqctl`; done when it returns.
    pub fn set_memory_alarm(&self, on: bool) -> Result<(), TestbedError> {
        let limit = if on { "1MB" } else { configuration::MEMORY_LIMIT };
        self.ctl(&["set_vm_memory_high_watermark", "absolute", limit]).map(drop)
    }

    /// Runs `rabbitmqctl` with these arguments, and gives what it printed. It asks a running node
    /// only; a paused one makes it wait for several seconds before it fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, TestbedError> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        self.run_control(&arguments)
    }

    fn run_control(&self, arguments: &[&OsStr]) -> Result<String, TestbedError> {
        let output = Command::new(CONTROL)
            .env_clear()
            .envs(self.control_environment())
            .arg("--quiet")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(io_error("starting rabbitmqctl"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let command = arguments.first().unwrap_or(&OsStr::new("")).display().to_string();
        let reason = tail(&format!("{}\n{printed}", String::from_utf8_lossy(&output.stderr)));
        Err(TestbedError::Command { program: "rabbitmqctl", command, reason })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
