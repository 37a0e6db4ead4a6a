#!/usr/bin/env python3
"""Let the Python package and the real Concrete ML work on each other's bytes, and compare.

For every model of `testdata/concrete`, in one process:

* the real `FHEModelClient` encrypts, `cipherscore.deployment.FHEModelServer` evaluates, the real
  client decrypts;
* with --both-ways, `cipherscore.deployment.FHEModelClient` encrypts and decrypts, and the real
  `FHEModelServer` evaluates;
* the real client's bytes go through `cipherscore.Fleet` to a worker process.

Then a model is compiled by Concrete ML and saved by `cipherscore.deployment.FHEModelDev`, and the real
classes are shown a folder of this package, which they must refuse in words.

    pip install ./python                  # into the environment that has concrete-ml
    cargo build --release --workspace
    cargo xtask services python interop/concrete_ml_python.py

Prints a Markdown table. The exit code is 1 when anything differs or fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Callable, List

import numpy
from concrete_ml_roundtrip import (
    HEADER,
    OUR_SERVER,
    REAL_SERVER,
    REPOSITORY,
    SCORE_TOLERANCE,
    Case,
    Outcome,
    as_tuple,
    default_folders,
    end_process,
    flat_integers,
    relative_error,
)

import cipherscore
from cipherscore import deployment
from concrete.ml.deployment import FHEModelClient, FHEModelServer

FLEET = "Concrete ML -> Fleet"
START_SECONDS = 180


def our_server(case: Case, work: Path, outcome: Outcome) -> None:
    """The real client, and our server."""
    client = FHEModelClient(str(case.folder), str(work / "keys"))
    server = deployment.FHEModelServer(case.folder)
    compare(case, outcome, client, client, server, case.rows())


def real_server(case: Case, work: Path, outcome: Outcome) -> None:
    """Our client, and the real server."""
    client = deployment.FHEModelClient(case.folder, work / "keys")
    rows = case.rows()
    rows = rows.reshape(len(rows), 1, -1)
    compare(case, outcome, client, client, FHEModelServer(str(case.folder)), rows)


def compare(case, outcome, encrypting, decrypting, server, rows) -> None:
    """Row by row, as Concrete ML does it."""
    keys = encrypting.get_serialized_evaluation_keys()
    integers, scores = [], []
    start = time.perf_counter()
    for row in rows:
        (message,) = as_tuple(encrypting.quantize_encrypt_serialize(row))
        (answer,) = as_tuple(server.run(message, keys))
        integers.append(flat_integers(decrypting.deserialize_decrypt(answer)))
        scores.append(decrypting.deserialize_decrypt_dequantize(answer).flatten())
    outcome.seconds = (time.perf_counter() - start) / len(rows)
    outcome.integers_equal = integers == case.outputs
    outcome.score_error = relative_error(scores, case.scores)


def through_fleet(case: Case, work: Path, outcome: Outcome, fleet: cipherscore.Fleet) -> None:
    """The real client, and a worker behind the queue. Scores are what comes back."""
    client = FHEModelClient(str(case.folder), str(work / "keys"))
    client.generate_private_and_evaluation_keys()
    rows = case.rows()
    # Concrete ML's rows have their number, 1, as a dimension of their own.
    rows = rows.reshape(len(rows), *rows.shape[2:]) if rows.ndim > 2 else rows
    classifier = deployment.FHEModelClient(case.folder).is_classifier
    method = "predict_proba" if classifier else "predict"
    start = time.perf_counter()
    found = numpy.asarray(fleet.submit(client, rows, method=method).result())
    outcome.seconds = (time.perf_counter() - start) / len(rows)
    outcome.score_error = relative_error(list(found.reshape(len(rows), -1)), case.scores)
    # What becomes the same scores was the same integers.
    outcome.integers_equal = outcome.score_error <= SCORE_TOLERANCE


def attempt(case: Case, direction: str, run: Callable[[Case, Path, Outcome], None]) -> Outcome:
    """A failure must not hide the other cases."""
    outcome = Outcome(case, direction)
    with tempfile.TemporaryDirectory() as work:
        try:
            run(case, Path(work), outcome)
        except Exception as error:  # pylint: disable=broad-exception-caught
            outcome.failure = f"{type(error).__name__}: {error}"
    return outcome


def saved_by_ours() -> str:
    """A compiled model of Concrete ML, saved by our class; empty when all is well."""
    from concrete.ml.sklearn import LogisticRegression

    random = numpy.random.RandomState(0)
    features = random.rand(100, 5)
    model = LogisticRegression(n_bits=8)
    model.fit(features, (features[:, 0] > 0.5).astype(int))
    model.compile(features)
    with tempfile.TemporaryDirectory() as work:
        deployment.FHEModelDev(Path(work) / "model", model).save()
        client = deployment.FHEModelClient(Path(work) / "model")
        server = deployment.FHEModelServer(Path(work) / "model")
        keys = client.get_serialized_evaluation_keys()
        result = server.run(client.quantize_encrypt_serialize(features), keys)
        found = client.deserialize_decrypt_dequantize(result)
    difference = numpy.abs(found - model.predict_proba(features)).max()
    return "" if difference <= SCORE_TOLERANCE else f"scores differ by {difference}"


def refused_in_words() -> str:
    """What the real classes say of a folder of ours; empty when it names cipherscore."""
    from sklearn.tree import DecisionTreeClassifier

    features = numpy.random.RandomState(0).rand(50, 3)
    model = DecisionTreeClassifier(max_depth=2).fit(features, features[:, 0] > 0.5)
    with tempfile.TemporaryDirectory() as work:
        deployment.FHEModelDev(Path(work) / "model", model).save()
        for real in (FHEModelClient, FHEModelServer):
            try:
                real(str(Path(work) / "model"))
            except ValueError as error:
                if "cipherscore.deployment" not in str(error):
                    return f"{real.__name__} says: {error}"
            else:
                return f"{real.__name__} opened it"
    return ""


def start_worker(models: Path, log: Path) -> "subprocess.Popen[bytes]":
    """The services' URLs are in the environment."""
    program = REPOSITORY / "target" / "release" / "cipherscore-worker"
    command = [program, "start", "--models", models, "--set", "health.listen="]
    with open(log, "wb") as file:
        return subprocess.Popen(command, stderr=file, env=dict(os.environ))


def wait_for_worker(fleet: cipherscore.Fleet, case: Case) -> None:
    """The worker opens models one after the other; this waits for one of them."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client = deployment.FHEModelClient(case.folder)
            fleet.predict(client, case.rows()[:1].reshape(1, -1))
            return
        except cipherscore.FleetError as error:
            if "no worker has ever served" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> int:
    """Compare, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", type=Path, help="case folders (default: all)")
    parser.add_argument("--both-ways", action="store_true", help="the real server as well")
    options = parser.parse_args()
    packages = [f"{name} {version(name)}" for name in ("concrete-ml", "concrete-python")]
    print(f"cipherscore {cipherscore.__version__}, {', '.join(packages)}, Python {sys.version.split()[0]}\n")
    cases = [Case(folder) for folder in options.folder or default_folders()]
    # Encrypted training is a function, which concrete_ml_training.py is for.
    cases = [case for case in cases if "training" not in case.name]
    outcomes: List[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        for case in cases:
            (models / case.name).mkdir(parents=True)
            shutil.copy(case.server_zip, models / case.name)
        worker = start_worker(models, Path(temporary) / "worker.log")
        try:
            with cipherscore.Fleet() as fleet:
                wait_for_worker(fleet, cases[0])
                print(HEADER)
                for case in cases:
                    wait_for_worker(fleet, case)
                    runs = [(OUR_SERVER, our_server)]
                    runs += [(REAL_SERVER, real_server)] if options.both_ways else []
                    runs += [(FLEET, lambda *a: through_fleet(*a, fleet))]
                    for direction, run in runs:
                        outcomes.append(attempt(case, direction, run))
                        print(outcomes[-1].line(), flush=True)
        finally:
            worker.terminate()
            worker.wait(60)
    failures = [f"{outcome.case.name}: {outcome.failure}" for outcome in outcomes if outcome.failure]
    for what, check in [("saved by FHEModelDev", saved_by_ours), ("refusals", refused_in_words)]:
        said = check()
        print(f"\n{what}: {said or 'as it should be'}")
        failures += [f"{what}: {said}"] if said else []
    for failure in failures:
        print(failure, file=sys.stderr)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"\n{passed} of {len(outcomes)} passed")
    return 0 if passed == len(outcomes) and not failures else 1


if __name__ == "__main__":
    end_process(main())
