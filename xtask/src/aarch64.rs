//! `cargo xtask aarch64`: the program built for 64-bit ARM, run under emulation, and its integers
//! compared with this machine's.
//!
//! The compiler's library for another processor comes with Debian's compiler of the same version,
//! so the program is built in a root of Debian's own, by `debootstrap`; this takes root and x86-64.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::ensure;
use cipherscore_testbed::find_or_install;

use crate::run;

/// All that this task makes, from the root of the repository.
const FOLDER: &str = "target/aarch64";
/// The release whose compiler is new enough.
const RELEASE: &str = "sid";
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Packages of the root, apart from the library of the compiler.
const PACKAGES: &str = "rustc cargo gcc libstd-rust-dev:arm64 gcc-aarch64-linux-gnu \
                        libc6-dev-arm64-cross qemu-user";
/// Runs in the root. Mounts end with the process that has them.
const INSIDE: &str = r#"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mkdir -p "$ROOT/repository" "$ROOT/cargo/registry"
mount --bind "$REPOSITORY" "$ROOT/repository"
mount --bind "$REGISTRY" "$ROOT/cargo/registry"
exec chroot "$ROOT" env --chdir=/repository "$@"
"#;
/// Of a release that moves, the list of packages may be older than it says.
const APT: &str = "export DEBIAN_FRONTEND=noninteractive
dpkg --add-architecture arm64
apt-get update -o Acquire::Check-Valid-Until=false
apt-get install --yes --no-install-recommends";

/// Where a command runs.
#[derive(Clone, Copy)]
enum Machine {
    This,
    Emulated,
}

/// A model, and rows for it.
struct Subject {
    name: &'static str,
    /// Whether its `server.zip` is Concrete ML's, which `import` takes.
    is_concrete: bool,
    rows: &'static str,
}

const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "decision_tree_classifier",
        is_concrete: true,
        rows: "testdata/concrete/decision_tree_classifier/rows.csv",
    },
    Subject {
        name: "breast_cancer_xgboost",
        is_concrete: false,
        rows: "examples/breast_cancer_xgboost/rows.csv",
    },
];

/// Builds the program, runs each command with each model on both machines, and prints what took how
/// long.
pub(crate) fn aarch64(root: &Path) -> anyhow::Result<()> {
    let here = Here { repository: root.canonicalize()? };
    let (made, seconds) = timed(|| here.make_root())?;
    if made {
        println!("the root of {RELEASE}: {seconds:.0} s");
    }
    let ((), seconds) = timed(|| here.build())?;
    println!("the program: {seconds:.0} s");
    here.make_subjects()?;
    println!("| model | command | this machine, s | emulated, s |\n|---|---|---|---|");
    for subject in &SUBJECTS {
        let this = here.integers(subject, Machine::This)?;
        let emulated = here.integers(subject, Machine::Emulated)?;
        for ((command, one), (_, other)) in this.seconds.iter().zip(&emulated.seconds) {
            println!("| {} | {command} | {one:.2} | {other:.2} |", subject.name);
        }
        let all = [&this.decrypted, &this.predicted, &emulated.decrypted, &emulated.predicted];
        ensure!(
            all.iter().all(|integers| *integers == all[0]),
            "{}: integers differ; {FOLDER}/{}/ has them",
            subject.name,
            subject.name
        );
        println!("{}: {} rows, integers equal", subject.name, all[0].lines().count() - 1);
    }
    Ok(())
}

/// What came of a model on a machine.
struct Found {
    decrypted: String,
    predicted: String,
    seconds: Vec<(&'static str, f64)>,
}

struct Here {
    repository: PathBuf,
}

impl Here {
    /// Makes the root, unless it is there. Returns whether it was made.
    fn make_root(&self) -> anyhow::Result<bool> {
        let folder = self.repository.join(FOLDER);
        let made = folder.join("made");
        if made.exists() {
            return Ok(false);
        }
        let find = || Command::new("debootstrap").arg("--version").output().ok();
        find_or_install("debootstrap", "debootstrap", find)?;
        let root = folder.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&folder)?;
        run(Command::new("debootstrap")
            .args(["--variant=minbase", "--include=ca-certificates", RELEASE])
            .arg(&root))?;
        fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))?;
        run(self.inside().args(["sh", "-euc", &format!("{APT} {PACKAGES}")]))?;
        // Last: a root that is half made is made again.
        fs::write(made, RELEASE)?;
        Ok(true)
    }

    /// A command in the root, in the repository's folder.
    fn inside(&self) -> Command {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-euc", INSIDE, "sh"])
            .env("ROOT", self.repository.join(FOLDER).join("root"))
            .env("REPOSITORY", &self.repository)
            .env("REGISTRY", home.unwrap_or_default().join("registry"));
        command
    }

    /// Builds the program for both machines.
    fn build(&self) -> anyhow::Result<()> {
        let cargo = || {
            let mut command = Command::new(env!("CARGO"));
            command.current_dir(&self.repository);
            command
        };
        run(cargo().args(["build", "--release", "--workspace", "--locked", "--bin=cipherscore"]))?;
        run(cargo().args(["fetch", "--locked"]))?;
        run(self
            .inside()
            .args(["env", "-u", "RUSTUP_TOOLCHAIN", "CARGO_HOME=/cargo"])
            .arg(format!("CARGO_TARGET_DIR={FOLDER}/build"))
            .arg("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc")
            .arg("CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc")
            .args(["/usr/bin/cargo", "build", "--release", "--workspace", "--locked", "--offline"])
            .args(["--bin=cipherscore", "--target", TARGET]))
    }

    /// A folder for each model, with its zips.
    fn make_subjects(&self) -> anyhow::Result<()> {
        for Subject { name, is_concrete, .. } in &SUBJECTS {
            let folder = self.repository.join(FOLDER).join(name);
            fs::create_dir_all(&folder)?;
            if *is_concrete {
                let case = self.repository.join("testdata/concrete").join(name);
                fs::copy(case.join("client.zip"), folder.join("client.zip"))?;
                fs::copy(case.join("server.mlir.zip"), folder.join("server.zip"))?;
            } else {
                let example = format!("examples/{name}");
                run(self.program(Machine::This).args([
                    "compile",
                    &format!("{example}/model.json"),
                    "--calibration",
                    &format!("{example}/training.csv"),
                    "--output",
                    &format!("{FOLDER}/{name}"),
                ]))?;
            }
        }
        Ok(())
    }

    fn program(&self, machine: Machine) -> Command {
        match machine {
            Machine::This => {
                let mut command = Command::new(self.repository.join("target/release/cipherscore"));
                command.current_dir(&self.repository);
                command
            }
            Machine::Emulated => {
                let mut command = self.inside();
                command.args(["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]);
                command.arg(format!("{FOLDER}/build/{TARGET}/release/cipherscore"));
                command
            }
        }
    }

    /// All commands with a model, with keys of their own.
    fn integers(&self, subject: &Subject, machine: Machine) -> anyhow::Result<Found> {
        let model = format!("{FOLDER}/{}", subject.name);
        let folder = match machine {
            Machine::This => format!("{model}/this"),
            Machine::Emulated => format!("{model}/emulated"),
        };
        let path = self.repository.join(&folder);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(path.join("rows"))?;
        let mut seconds = Vec::new();
        let mut command = |name: &'static str, arguments: &str, files: &[String]| {
            let mut program = self.program(machine);
            program.arg(name).args(arguments.split_whitespace()).args(files);
            let ((), taken) = timed(|| run(&mut program))?;
            seconds.push((name, taken));
            anyhow::Ok(())
        };
        let keys = format!("--client {model}/client.zip --keys {folder}/keys");
        let (server, rows) = if subject.is_concrete {
            let imported = format!("{folder}/imported.zip");
            command("import", &format!("{model}/server.zip --output {imported}"), &[])?;
            (imported, format!("{folder}/rows/"))
        } else {
            (format!("{model}/server.zip"), format!("{folder}/rows/all.bin"))
        };
        command("keygen", &keys, &[])?;
        command("encrypt", &format!("{keys} --input {} --output {rows}", subject.rows), &[])?;
        let rows = files(&path.join("rows"))?;
        let of = |kind: &str| rows.iter().map(|file| format!("{folder}/{kind}{file}")).collect();
        let (rows, results): (Vec<_>, Vec<_>) = (of("rows/"), of("result-"));
        let key = format!("--server {server} --evaluation-key {folder}/keys/evaluation.key");
        let output = [&rows[..], &["--output".to_owned()], &results].concat();
        command("evaluate", &format!("{key} --input"), &output)?;
        let decrypted = format!("{folder}/decrypted.csv");
        let to = format!("{keys} --integers --output {decrypted} --input");
        command("decrypt", &to, &results)?;
        let predicted = format!("{folder}/predicted.csv");
        let all = format!("--artifact {model} --input {} --output {predicted}", subject.rows);
        command("predict", &format!("{all} --integers"), &[])?;
        let read = |file| fs::read_to_string(self.repository.join(file));
        Ok(Found { decrypted: read(decrypted)?, predicted: read(predicted)?, seconds })
    }
}

/// Names of the files in a folder, in their order.
fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// What it gives, and the seconds that it takes.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let start = Instant::now();
    Ok((work()?, start.elapsed().as_secs_f64()))
}
