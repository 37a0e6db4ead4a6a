//! The private RabbitMQ itself: it answers, it can be hurt, it keeps its data, and it does not
//! stay behind. A start takes seconds, so each test asks one node several things.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cipherscore_testbed::{RabbitMq, RabbitMqOptions, User};

/// Set for the process that is killed while it has a node.
const VICTIM: &str = "CIPHERSCORE_TESTBED_VICTIM";
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const TENANT: User<'_> = User {
    name: "tenant",
    password: "of \"tenant\"",
    configure: "",
    write: "^jobs$",
    read: r"^reply\.tenant\.",
    tags: &["monitoring"],
};

/// AMQP 0-9-1, as bytes. Methods are class and method number.
struct Connection(TcpStream);

impl Connection {
    fn greet(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        Self(stream)
    }

    fn open(address: SocketAddr, user: &str, password: &str) -> Self {
        let mut connection = Self::greet(address);
        assert_eq!(connection.receive()[..4], [0, 10, 0, 10], "start");
        let response = format!("\0{user}\0{password}");
        let length = u32::try_from(response.len()).unwrap().to_be_bytes();
        let start_ok = [b"\0\0\0\0\x05PLAIN", &length[..], response.as_bytes(), b"\x05en_US"];
        connection.send([0, 10, 0, 11], &start_ok.concat());
        assert_eq!(connection.receive()[..4], [0, 10, 0, 30], "tune");
        connection.send([0, 10, 0, 31], &[0, 10, 0, 1, 0, 0, 0, 0]);
        connection.send([0, 10, 0, 40], b"\x01/\0\0");
        assert_eq!(connection.receive()[..4], [0, 10, 0, 41], "open-ok");
        connection
    }

    fn send(&mut self, method: [u8; 4], arguments: &[u8]) {
        let length = u32::try_from(method.len() + arguments.len()).unwrap().to_be_bytes();
        let frame = [&[1, 0, 0], &length[..], &method, arguments, &[0xCE]].concat();
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[3..].try_into().unwrap());
        let mut payload = vec![0; length as usize + 1];
        self.0.read_exact(&mut payload).unwrap();
        assert_eq!((head[0], payload.pop()), (1, Some(0xCE)), "a method frame");
        payload
    }
}

/// Running processes with this in their environment or command line.
fn processes_with(text: &[u8]) -> Vec<String> {
    let has = |file: &Path| {
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text)
    };
    let folders = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let found =
        folders.filter(|folder| has(&folder.join("environ")) || has(&folder.join("cmdline")));
    found.map(|folder| std::fs::read_to_string(folder.join("comm")).unwrap_or_default()).collect()
}

fn within(time: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_node_keeps_its_data_over_restarts_and_ends_with_its_value() {
    let mut node = RabbitMq::start().unwrap();
    let (name, url, first) = (node.node_name().to_owned(), node.url(), node.process_id().unwrap());
    let comm = std::fs::read_to_string(format!("/proc/{first}/comm")).unwrap();
    assert_eq!(comm.trim(), "beam.smp", "the watched process is the server itself");
    assert!(url.starts_with("amqp://testbed:") && url.ends_with("/%2f"));
    assert_eq!(node.tls_url(), None);
    node.add_user(&TENANT).unwrap();
    node.ctl(&["set_policy", "kept", "^jobs$", r#"{"max-length":7}"#]).unwrap();

    node.restart().unwrap();
    assert!(node.url() == url && node.process_id() != Some(first));
    assert!(node.ctl(&["list_policies"]).unwrap().contains(r#"{"max-length":7}"#));
    node.kill();
    assert_eq!((node.process_id(), processes_with(name.as_bytes()).len()), (None, 0));
    node.restart().unwrap();
    assert!(node.ctl(&["list_policies"]).unwrap().contains(r#"{"max-length":7}"#));
    let users = node.ctl(&["list_users"]).unwrap();
    assert!(users.contains("tenant\t[monitoring]") && users.contains("testbed\t[administrator]"));
    let permissions = node.ctl(&["list_permissions"]).unwrap();
    assert!(permissions.contains("tenant\t\t^jobs$\t^reply\\.tenant\\."), "{permissions}");
    Connection::open(node.address(), TENANT.name, TENANT.password);

    node.pause().unwrap();
    drop(node);
    assert_eq!(processes_with(name.as_bytes()), Vec::<String>::new());
}

#[test]
fn two_nodes_do_not_meet_and_can_be_hurt() {
    let options = RabbitMqOptions {
        configuration: vec!["consumer_timeout = 15000".to_owned()],
        channel_tick_interval: Some(Duration::from_secs(1)),
        ..RabbitMqOptions::default()
    };
    let other = std::thread::spawn(|| RabbitMq::start().unwrap());
    let node = RabbitMq::start_with(options).unwrap();
    let other = other.join().unwrap();
    assert!(node.url() != other.url() && node.password() != other.password());
    let environment = "{ok, Seconds} = application:get_env(rabbit, consumer_timeout), \
                       {ok, Tick} = application:get_env(rabbit, channel_tick_interval), \
                       {Seconds, Tick}.";
    assert_eq!(node.ctl(&["eval", environment]).unwrap().trim(), "{15000,1000}");

    let mut connection = Connection::open(node.address(), RabbitMq::USER, node.password());
    let mut stranger = Connection::open(other.address(), RabbitMq::USER, other.password());
    node.close_all_connections("for a test").unwrap();
    let close = connection.receive();
    assert_eq!(close[..4], [0, 10, 0, 50], "close");
    assert!(String::from_utf8_lossy(&close).contains("for a test"));
    stranger.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let kind = stranger.0.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");

    let alarms = || node.ctl(&["eval", "rabbit_alarm:get_alarms()."]).unwrap();
    node.set_memory_alarm(true).unwrap();
    assert!(alarms().contains("memory"));
    node.set_memory_alarm(false).unwrap();
    assert_eq!(alarms().trim(), "[]");

    node.pause().unwrap();
    let mut silent = Connection::greet(node.address());
    silent.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let kind = silent.0.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
    node.resume().unwrap();
    silent.0.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.receive()[..4], [0, 10, 0, 10], "start");

    let error = node.ctl(&["delete_queue", "none"]).unwrap_err().to_string();
    assert!(error.starts_with("rabbitmqctl delete_queue failed: "), "{error}");
}

#[test]
fn a_wrong_configuration_is_shown() {
    let options = RabbitMqOptions {
        configuration: vec!["no_such_setting = 1".to_owned()],
        ..RabbitMqOptions::default()
    };
    let error = RabbitMq::start_with(options).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

/// This test runs itself in another process, kills that one, and looks for what it had started:
/// once while the node boots, once when it runs.
#[test]
fn a_node_ends_when_its_owner_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        eprintln!("booting");
        let _node = RabbitMq::start().unwrap();
        eprintln!("running");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    for moment in ["booting", "running"] {
        // Every file of the victim is in here, and so in the environment of the node's processes.
        let folder = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["a_node_ends_when_its_owner_is_killed", "--exact", "--nocapture"])
            .env(VICTIM, "1")
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stderr.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().contains(moment)).unwrap().unwrap();
        let mark = folder.path().as_os_str().as_bytes();
        let has_node = || processes_with(mark).iter().any(|name| name.trim() == "beam.smp");
        assert!(within(PATIENCE, has_node));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let gone = within(PATIENCE, || processes_with(mark).is_empty());
        assert!(gone, "{moment}: {:?} stayed behind", processes_with(mark));
    }
}
