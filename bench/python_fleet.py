#!/usr/bin/env python3
"""Measure rows per second of `cipherscore.Fleet`: an XGBClassifier, one worker, first and later calls.

    cargo build --release --workspace
    cargo xtask services VENV/bin/python bench/python_fleet.py

The first call makes the keys, puts the evaluation key into the store and has it prepared; the others
find all of it. Every score is compared with the clear model's.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier

from cipherscore import Fleet, FleetError
from cipherscore.deployment import FHEModelClient, FHEModelDev

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_ERROR = 1e-3


def main() -> None:
    """Print a line for each call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--no-hide", action="store_true", help="a model that is no secret")
    parser.add_argument("--used", action="store_true", help="thresholds without decoys")
    options = parser.parse_args()

    features, target = load_breast_cancer(return_X_y=True)
    model = XGBClassifier(n_estimators=options.trees, max_depth=options.depth)
    model.fit(features, target)
    random = np.random.RandomState(0)
    rows = features[random.randint(0, len(features), options.rows)]
    rows = rows * (1 + 0.01 * random.randn(*rows.shape))
    clear = model.predict_proba(rows)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        calibration = None if options.used else features
        saved = FHEModelDev(folder / "models" / "xgb", model)
        saved.save(calibration=calibration, hide=not options.no_hide)
        worker = start_worker(folder)
        try:
            with Fleet() as fleet:
                client = FHEModelClient(folder / "models" / "xgb", folder / "keys")
                wait_for_worker(fleet, FHEModelClient(folder / "models" / "xgb"), rows[:1])
                for call in range(1, options.calls + 1):
                    start = time.perf_counter()
                    scores = fleet.predict_proba(client, rows)
                    seconds = time.perf_counter() - start
                    error = np.abs(scores - clear).max()
                    assert error <= MAX_ERROR, error
                    rate = len(rows) / seconds
                    print(
                        f"call {call}: {len(rows)} rows in {seconds:.3f} s, {rate:.0f} rows/s, "
                        f"largest difference {error:.1e}",
                        flush=True,
                    )
        finally:
            worker.terminate()
            worker.wait()


def start_worker(folder: Path) -> "subprocess.Popen[bytes]":
    """The services' URLs are in the environment."""
    program = REPOSITORY / "target" / "release" / "cipherscore-worker"
    command = [program, "start", "--models", folder / "models", "--set", "health.listen="]
    with open(folder / "worker.log", "wb") as log:
        return subprocess.Popen(command, stderr=log, env=dict(os.environ))


def wait_for_worker(fleet: Fleet, client: FHEModelClient, row: np.ndarray) -> None:
    """Other keys than those that are measured."""
    for _ in range(600):
        try:
            fleet.predict(client, row)
            return
        except FleetError as error:
            if "no worker has ever served" not in str(error):
                raise
            time.sleep(0.1)
    raise RuntimeError("the worker does not begin")


if __name__ == "__main__":
    main()
