//! The private Redis itself: it answers, it can be hurt, and it does not stay behind.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader};
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
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["a_server_ends_when_its_owner_is_killed", "--exact", "--nocapture"])
        .env(VICTIM, "1")
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
