#!/usr/bin/env python3
"""Let a fleet of workers evaluate what the real Concrete ML encrypted, and compare.

The real `FHEModelClient` makes keys and ciphertexts, `cipherscore submit` sends them through
RabbitMQ to two worker processes, the real client decrypts the results. The integers must be those
that Concrete ML computes without encryption, and so must the scores. The workers open Concrete
ML's own `server.zip`.

    cargo build --release
    cargo xtask services python interop/concrete_ml_fleet.py

Prints a Markdown table. The exit code is 1 when anything differs or fails.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

from concrete_ml_roundtrip import (
    BINARY,
    HEADER,
    Case,
    Cipherscore,
    Outcome,
    as_tuple,
    default_folders,
    end_process,
    flat_integers,
    introduce,
    relative_error,
    repeated,
)

from concrete.ml.deployment import FHEModelClient

DIRECTION = "Concrete ML -> workers"
WORKERS = 2
START_SECONDS = 120


def start_workers(cli: Cipherscore, models: Path, logs: Path) -> List[subprocess.Popen]:
    """Start worker processes; the services' URLs are in the environment."""
    workers = []
    for number in range(1, WORKERS + 1):
        command = [cli.binary, "worker", "start", "--models", models]
        command += ["--set", f"worker.name=worker-{number}", "--set", "worker.threads=1"]
        command += ["--set", "health.listen="]
        with open(logs / f"worker-{number}.log", "wb") as log:
            workers.append(subprocess.Popen(command, stderr=log))
    return workers


def submit(cli: Cipherscore, case: Case, work: Path) -> Outcome:
    """The real client encrypts and decrypts, the fleet evaluates."""
    outcome = Outcome(case, DIRECTION)
    client = FHEModelClient(str(case.folder), str(work / "keys"))
    key = work / "evaluation.key"
    key.write_bytes(client.get_serialized_evaluation_keys())
    inputs, outputs = [], []
    for number, row in enumerate(case.rows()):
        inputs.append(work / f"input-{number}.bin")
        outputs.append(work / f"output-{number}.bin")
        (message,) = as_tuple(client.quantize_encrypt_serialize(row))
        inputs[-1].write_bytes(message)
    model_id = hashlib.sha256(case.server_zip.read_bytes()).hexdigest()
    start = time.perf_counter()
    cli.run(
        "submit",
        *("--model", model_id),
        *("--evaluation-key", key),
        *repeated("--input", inputs),
        *repeated("--output", outputs),
    )
    outcome.seconds = (time.perf_counter() - start) / len(inputs)
    answers = [path.read_bytes() for path in outputs]
    integers = [flat_integers(client.deserialize_decrypt(answer)) for answer in answers]
    scores = [client.deserialize_decrypt_dequantize(answer).flatten() for answer in answers]
    outcome.integers_equal = integers == case.outputs
    outcome.score_error = relative_error(scores, case.scores)
    return outcome


def attempt(cli: Cipherscore, case: Case) -> Outcome:
    """A failure must not hide the other cases."""
    with tempfile.TemporaryDirectory() as work:
        try:
            return submit(cli, case, Path(work))
        except Exception as error:  # pylint: disable=broad-exception-caught
            return Outcome(case, DIRECTION, failure=f"{type(error).__name__}: {error}")


def wait_for_workers(cli: Cipherscore, workers: List[subprocess.Popen], logs: Path) -> None:
    """Wait until every worker has opened all models and is listed."""
    deadline = time.monotonic() + START_SECONDS
    while cli.run("status").count("worker-") < WORKERS:
        ended = any(worker.poll() is not None for worker in workers)
        if ended or time.monotonic() > deadline:
            said = [path.read_text(encoding="utf-8") for path in logs.glob("*.log")]
            raise RuntimeError("the workers do not begin:\n" + "\n".join(said))
        time.sleep(0.2)


def main() -> int:
    """Compare, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", type=Path, help="case folders (default: all)")
    options = parser.parse_args()
    cli = Cipherscore(BINARY)
    introduce(cli)
    cases = [Case(folder) for folder in options.folder or default_folders()]
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        for case in cases:
            (models / case.name).mkdir(parents=True)
            shutil.copy(case.server_zip, models / case.name)
        workers = start_workers(cli, models, Path(temporary))
        try:
            wait_for_workers(cli, workers, Path(temporary))
            print(HEADER.replace("evaluate", "all of submit"))
            outcomes = []
            for case in cases:
                outcomes.append(attempt(cli, case))
                print(outcomes[-1].line(), flush=True)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)
    for outcome in outcomes:
        if outcome.failure:
            print(f"{outcome.case.name}: {outcome.failure}", file=sys.stderr)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"\n{passed} of {len(outcomes)} passed")
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    end_process(main())
