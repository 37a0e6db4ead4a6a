//! A node's files and environment. Nothing outside the private folder is read or written:
//! neither `/etc/rabbitmq` nor `~/.erlang.cookie`.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;

use super::RabbitMq;
use crate::tls::{Tls, write_private};

/// In the private folder.
pub(super) const LOG: &str = "rabbit.log";
const CONFIGURATION: &str = "rabbitmq.conf";
/// Absolute: a share of the machine's memory says nothing about a test.
pub(super) const MEMORY_LIMIT: &str = "1GB";
/// Below this much free space RabbitMQ blocks publishers.
const DISK_LIMIT: &str = "50MB";
/// Two schedulers, which sleep when there is nothing to do, and which are not bound to processors:
/// RabbitMQ's default binds the schedulers of all nodes to the same ones.
const EMULATOR: &str = "+P 1048576 +t 5000000 +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";
/// The same for `rabbitmqctl`.
const CONTROL_EMULATOR: &str = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none";
/// Erlang finds localhost without `inet_gethost`, a process that asks the machine's resolver.
const RESOLVER: &str = "{lookup,[file]}.\n{host,{127,0,0,1},[\"localhost\"]}.\n";

impl RabbitMq {
    /// The cookie is the secret between the node and `rabbitmqctl`. Erlang wants it in the home
    /// folder, readable by the owner alone.
    pub(super) fn write_files(&self) -> io::Result<()> {
        let cookie = self.path(".erlang.cookie");
        if !cookie.exists() {
            write_private(&cookie, &self.password)?;
        }
        std::fs::create_dir_all(self.path("conf.d"))?;
        write_private(&self.path("rabbitmq-env.conf"), "")?;
        let plugins = format!("[{}].\n", self.options.plugins.join(","));
        write_private(&self.path("enabled_plugins"), &plugins)?;
        write_private(&self.path("inetrc"), RESOLVER)?;
        write_private(&self.path(CONFIGURATION), &self.configuration())?;
        write_private(&self.path("advanced.config"), &self.advanced_configuration())
    }

    fn configuration(&self) -> String {
        let mut text = format!(
            "listeners.tcp.local = 127.0.0.1:{}\n\
             default_user = {}\n\
             default_pass = {}\n\
             vm_memory_high_watermark.absolute = {MEMORY_LIMIT}\n\
             disk_free_limit.absolute = {DISK_LIMIT}\n\
             log.file = {}\n\
             log.file.level = info\n\
             log.console = false\n",
            self.ports.amqp,
            Self::USER,
            self.password,
            self.path(LOG).display(),
        );
        if let Some(tls) = &self.options.tls {
            text += &tls_configuration(self.ports.tls, tls);
        }
        for line in &self.options.configuration {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// For what has no name in `rabbitmq.conf`.
    fn advanced_configuration(&self) -> String {
        let interval = self.options.channel_tick_interval.map_or_else(String::new, |interval| {
            format!("{{channel_tick_interval,{}}}", interval.as_millis())
        });
        format!("[{{rabbit,[{interval}]}}].\n")
    }

    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = self.control_environment();
        // With a name from the start, RabbitMQ does not ask epmd whether the name is free.
        let distribution = format!(
            "-start_epmd false -erl_epmd_port {} -sname {} \
             -kernel inet_dist_use_interface {{127,0,0,1}}",
            self.ports.distribution, self.name
        );
        let paths = [
            ("RABBITMQ_CONFIG_FILE", CONFIGURATION),
            ("RABBITMQ_CONFIG_FILES", "conf.d"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("ERL_CRASH_DUMP", "crash.dump"),
        ];
        environment.extend(paths.map(|(name, file)| (name, self.path(file).into())));
        environment.extend([
            // Only then does RabbitMQ's script become the server, rather than stay its parent.
            ("RUNNING_UNDER_SYSTEMD", OsString::from("true")),
            ("RABBITMQ_SERVER_ERL_ARGS", EMULATOR.into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", distribution.into()),
        ]);
        environment
    }

    /// What `rabbitmqctl` needs. It asks for the node's port nowhere and listens nowhere.
    pub(super) fn control_environment(&self) -> Vec<(&'static str, OsString)> {
        let port = self.ports.distribution;
        let control = format!("-erl_epmd_port {port} -dist_listen false {CONTROL_EMULATOR}");
        vec![
            ("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into())),
            ("LANG", "C.UTF-8".into()),
            ("HOME", self.folder.path().into()),
            // Also for the runtimes that rabbitmqctl starts only in order to start epmd.
            ("ERL_FLAGS", "-start_epmd false".into()),
            ("ERL_INETRC", self.path("inetrc").into()),
            ("RABBITMQ_NODENAME", self.name.clone().into()),
            ("RABBITMQ_CONF_ENV_FILE", self.path("rabbitmq-env.conf").into()),
            ("RABBITMQ_LOG_BASE", self.folder.path().into()),
            ("RABBITMQ_CTL_ERL_ARGS", control.into()),
        ]
    }
}

fn tls_configuration(port: u16, tls: &Tls) -> String {
    let mut text = format!("listeners.ssl.local = 127.0.0.1:{port}\n");
    let certificates = &tls.certificates;
    let files = [
        ("cacertfile", certificates.authority()),
        ("certfile", certificates.server_certificate()),
        ("keyfile", certificates.server_key()),
    ];
    for (name, file) in files {
        // Writing into a string does not fail.
        let _ = writeln!(text, "ssl_options.{name} = {}", file.display());
    }
    text += match tls.require_client_certificate {
        true => "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
        false => "ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
    };
    text
}
