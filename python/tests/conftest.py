"""What tests share: fitted models, folders, and a fleet where there are services."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TESTDATA = REPOSITORY / "testdata"
# How long anything may take on a busy machine, in seconds.
PATIENCE = 180
# scikit-learn's own checks skip what is about other array libraries; and only machine code of this
# kind of machine can be recorded.
EXPECTED_SKIPS = (
    "SCIPY_ARRAY_API is not set",
    "array_api_strict is not installed",
    "there is nothing to record",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With CIPHERSCORE_TESTS=complete, as `cargo xtask test` sets it, nothing is left out."""
    report = yield
    if report.skipped and os.environ.get("CIPHERSCORE_TESTS") == "complete":
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"{reason}: a skipped test, where all of them are to be run"
    return report


@pytest.fixture(scope="session")
def rows():
    """Rows and two classes that depend on them."""
    random = np.random.RandomState(7)
    features = random.rand(400, 6)
    target = (features[:, 0] + 0.5 * features[:, 1] * features[:, 2] > 0.7).astype(int)
    return features, target


@pytest.fixture
def folder(tmp_path):
    """A folder that is not there yet."""
    return tmp_path / "model"


def services():
    """URLs of RabbitMQ and Redis, which `cargo xtask services` sets."""
    names = ("CIPHERSCORE_BROKER_URL", "CIPHERSCORE_REDIS_URL")
    urls = [os.environ.get(name) for name in names]
    if not all(urls):
        pytest.skip("run by `cargo xtask services`: RabbitMQ and Redis are needed")
    return urls


class Workers:
    """Worker processes that open whatever models are put into their folder."""

    def __init__(self, folder: Path):
        self.models = folder / "models"
        self.models.mkdir(parents=True)
        self.log = folder / "worker.log"
        program = REPOSITORY / "target" / "release" / "cipherscore-worker"
        if not program.exists():
            pytest.skip(f"{program} is not built: cargo build --release --workspace")
        command = [program, "start", "--models", self.models]
        command += ["--set", "health.listen=", "--set", "worker.name=python-tests"]
        # Tests wait for models.
        command += ["--set", "models.reload_interval=1s"]
        broker, store = services()
        variables = {"CIPHERSCORE_BROKER__URL": broker, "CIPHERSCORE_STORE__URL": store}
        with open(self.log, "wb") as log:
            environment = {**os.environ, **variables}
            self.process = subprocess.Popen(command, stderr=log, env=environment)

    def serve(self, server_zip: bytes, name: str) -> None:
        """Add a model; jobs can be published as soon as its queue is there, which takes a while."""
        folder = self.models / name
        folder.mkdir()
        # Whole or not at all.
        (folder / "server.part").write_bytes(server_zip)
        (folder / "server.part").rename(folder / "server.zip")

    def until(self, attempt):
        """Repeat what needs the queue of a model, until a worker has made it."""
        from cipherscore import NotServedError

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return attempt()
            except NotServedError:
                assert self.process.poll() is None, self.log.read_text()
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


class Gateway:
    """A process that speaks HTTP with data owners, on this machine only."""

    def __init__(self, folder: Path):
        folder.mkdir()
        program = REPOSITORY / "target" / "release" / "cipherscore"
        if not program.exists():
            pytest.skip(f"{program} is not built: cargo build --release --workspace")
        tokens = folder / "tokens"
        made = [program, "gateway", "token", "new", "--tenant", "bank", "--tokens", tokens]
        self.token = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        settings = [f"gateway.listen=127.0.0.1:{self.address[1]}", f"gateway.tokens_file={tokens}"]
        command = [program, "gateway", "start", "--set", "health.listen="]
        for setting in settings:
            command += ["--set", setting]
        broker, store = services()
        variables = {"CIPHERSCORE_BROKER_URL": broker, "CIPHERSCORE_REDIS_URL": store}
        self.log = folder / "gateway.log"
        with open(self.log, "wb") as log:
            environment = {**os.environ, **variables}
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        self._until_it_listens()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def _until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                socket.create_connection(self.address, 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    started = Gateway(tmp_path_factory.mktemp("gateway") / "started")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def workers(tmp_path_factory):
    started = Workers(tmp_path_factory.mktemp("workers"))
    yield started
    started.stop()


@pytest.fixture
def fleet():
    from cipherscore import Fleet

    broker, store = services()
    with Fleet(broker, store) as opened:
        yield opened
