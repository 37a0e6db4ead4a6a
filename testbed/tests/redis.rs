//! The private Redis itself: it answers, it can be hurt, and it does not stay behind.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cipherscore_testbed::Redis;

/// Set for the process that is killed while it has a server.
const VICTIM: &str = "CIPHERSCORE_TESTBED_VICTIM";

fn process(id: u32) -> PathBuf {
    Path::new("/proc").join(id.to_string())
}

/// Whether a process is gone, or only waits for its parent to notice.
fn ends_within(id: u32, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    let ended = || match std::fs::read_to_string(process(id).join("stat")) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        Err(_) => true,
    };
    while Instant::now() < deadline {
        if ended() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_server_restarts_on_its_port_and_ends_with_its_value() {
    let mut redis = Redis::start().unwrap();
    let (url, first) = (redis.url(), redis.process_id().unwrap());
    let name = std::fs::read_to_string(process(first).join("comm")).unwrap();
    assert_eq!(name.trim(), "redis-server");
    redis.restart().unwrap();
    assert_eq!(redis.url(), url);
    let second = redis.process_id().unwrap();
    assert!(first != second && !process(first).exists());
    redis.kill();
    assert!(!process(second).exists() && redis.process_id().is_none());
    redis.restart().unwrap();
    let third = redis.process_id().unwrap();
    drop(redis);
    assert!(!process(third).exists());
}

#[test]
fn two_servers_do_not_meet() {
    let (one, two) = (Redis::start().unwrap(), Redis::start().unwrap());
    assert_ne!(one.url(), two.url());
    assert_ne!(one.password(), two.password());
}

/// This test runs itself in another process, kills that one, and looks for the server it had.
#[test]
fn a_server_ends_when_its_owner_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let redis = Redis::start().unwrap();
        eprintln!("server {}", redis.process_id().unwrap());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["a_server_ends_when_its_owner_is_killed", "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stderr.take().unwrap()).lines();
    let server = lines.find_map(|line| line.unwrap().strip_prefix("server ")?.parse().ok());
    let server: u32 = server.unwrap();
    assert!(process(server).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(ends_within(server, Duration::from_secs(10)), "server {server} stayed behind");
}

/// Logs in and runs a command; the answers' first lines.
fn ask(redis: &Redis, login: &str, command: &str) -> [String; 2] {
    let address = redis.url().rsplit('@').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(format!("AUTH {login}\r\n{command}\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()]
}

#[test]
fn users_do_what_they_may_and_stay_over_restarts() {
    let mut redis = Redis::start().unwrap();
    redis.add_user("reader", "first", &["~*", "+@all"]).unwrap();
    redis.add_user("reader", r#"se"cr\et"#, &["~key:*", "+get"]).unwrap();
    assert!(redis.add_user("other", "password", &["+nonsense"]).is_err());
    for _ in 0..2 {
        assert!(ask(&redis, "reader first", "PING")[0].starts_with("-WRONGPASS"));
        let run = |command| ask(&redis, r#"reader "se\"cr\\et""#, command);
        assert_eq!(run("GET key:1"), ["+OK", "$-1"]);
        assert!(run("GET other:1")[1].starts_with("-NOPERM"));
        assert!(run("SET key:1 value")[1].starts_with("-NOPERM"));
        redis.restart().unwrap();
    }
    assert!(redis.url_for("reader", "x").starts_with("redis://reader:x@127.0.0.1:"));
}
