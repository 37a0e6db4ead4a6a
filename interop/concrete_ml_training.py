#!/usr/bin/env python3
"""Train on encrypted data with the real Concrete ML on one side, and compare.

The real `FHEModelClient` makes keys and ciphertexts, `cipherscore evaluate` computes every
iteration, the real client decrypts; then the other way round, with the real `FHEModelServer`. The
encrypted weights and bias of one iteration are inputs of the next. The integers must be those that
Concrete ML computes without encryption, after each iteration, and so must the de-quantised values.

    cargo build --release
    python interop/concrete_ml_training.py [FOLDER...]

A folder is one that `testdata/concrete/training.py` made; without one, it is the repository's own.
Prints a Markdown table. The exit code is 1 when anything differs or fails.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import List

import numpy
from concrete_ml_roundtrip import (
    BINARY,
    OUR_SERVER,
    REAL_SERVER,
    REPOSITORY,
    Cipherscore,
    end_process,
    flat_integers,
    introduce,
    read_table,
    repeated,
)

from concrete.ml.deployment import FHEModelClient, FHEModelServer

NAMES = ("x", "y", "weights", "bias")
STATE = ("weights", "bias")
HEADER = (
    "| function | client -> server | iterations | integers equal | values equal "
    "| seconds an iteration |\n|---|---|---|---|---|---|"
)


class Training:
    """A folder with a function, batches, and what Concrete ML computes for them."""

    def __init__(self, folder: Path):
        self.folder = folder
        expected = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        self.name: str = expected["case"]
        self.iterations: List[dict] = expected["iterations"]
        self.shapes = dict(zip(NAMES, expected["input_shapes"]))

    def table(self, name: str) -> numpy.ndarray:
        """All values of an argument, one after the other."""
        _, lines = read_table(self.folder / f"{name}.csv")
        return numpy.array(lines, dtype=numpy.float64).reshape(-1, *self.shapes[name])

    def values(self, name: str, index: int) -> numpy.ndarray:
        """One value of an argument, in its shape."""
        return self.table(name)[index].reshape(self.shapes[name])

    def line(self, direction: str, integers: List, values: List, seconds: float) -> str:
        """Compare, and format as a line of a Markdown table."""
        wanted = [sum(iteration["outputs"], []) for iteration in self.iterations]
        reals = [sum(iteration["values"], []) for iteration in self.iterations]
        cells = [
            self.name,
            direction,
            str(len(wanted)),
            "yes" if integers == wanted else "NO",
            "yes" if values == reals else "NO",
            f"{seconds / len(wanted):.2f}",
        ]
        return f"| {' | '.join(cells)} |"


def our_server(cli: Cipherscore, training: Training, work: Path) -> str:
    """The real client encrypts and decrypts, `cipherscore evaluate` trains."""
    client = FHEModelClient(str(training.folder), str(work / "keys"))
    key = work / "evaluation.key"
    key.write_bytes(client.get_serialized_evaluation_keys())
    _, _, *state = client.quantize_encrypt_serialize(
        None, None, training.values("weights", 0), training.values("bias", 0)
    )
    integers, values, seconds = [], [], 0.0
    for index in range(len(training.iterations)):
        x, y, _, _ = client.quantize_encrypt_serialize(
            training.values("x", index), training.values("y", index), None, None
        )
        inputs = [work / f"{name}.bin" for name in NAMES]
        outputs = [work / f"new-{name}.bin" for name in STATE]
        for path, value in zip(inputs, (x, y, *state)):
            path.write_bytes(value)
        start = time.perf_counter()
        cli.evaluate(training.folder / "server.zip", key, inputs, outputs)
        seconds += time.perf_counter() - start
        state = [path.read_bytes() for path in outputs]
        integers.append(flat_integers(client.deserialize_decrypt(*state)))
        reals = client.deserialize_decrypt_dequantize(*state)
        values.append([float(value) for real in reals for value in real.flatten()])
    return training.line(OUR_SERVER, integers, values, seconds)


def real_server(cli: Cipherscore, training: Training, work: Path) -> str:
    """Our client encrypts and decrypts, the real server trains."""
    client_zip, keys, encrypted = training.folder / "client.zip", work / "keys", work / "encrypted"
    cli.keygen(client_zip, keys)
    tables = [training.folder / f"{name}.csv" for name in NAMES]
    cli.run(
        "encrypt",
        *("--client", client_zip),
        *("--keys", keys),
        *repeated("--input", tables),
        *("--output", f"{encrypted}/"),
    )
    server = FHEModelServer(str(training.folder))
    key = (keys / "evaluation.key").read_bytes()
    state = [(encrypted / f"{name}-000000.bin").read_bytes() for name in STATE]
    integers, values, seconds = [], [], 0.0
    for index in range(len(training.iterations)):
        batch = [(encrypted / f"{name}-{index:06}.bin").read_bytes() for name in ("x", "y")]
        start = time.perf_counter()
        state = server.run((*batch, *state), key)
        seconds += time.perf_counter() - start
        for flags, found, number in ((["--integers"], integers, int), ([], values, float)):
            found.append(decrypt(cli, client_zip, keys, work, state, flags, number))
    return training.line(REAL_SERVER, integers, values, seconds)


def decrypt(cli: Cipherscore, client_zip: Path, keys: Path, work: Path, state, flags, number):
    """Numbers of weights and bias, as `cipherscore decrypt` writes them."""
    results = [work / f"result-{name}.bin" for name in STATE]
    tables = [work / f"{name}.csv" for name in STATE]
    for path, value in zip(results, state):
        path.write_bytes(value)
    cli.run(
        "decrypt",
        *("--client", client_zip),
        *("--keys", keys),
        *repeated("--input", results),
        *repeated("--output", tables),
        *flags,
    )
    return [number(cell) for table in tables for line in read_table(table)[1] for cell in line]


def main() -> int:
    """Train in both directions, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", type=Path, help="(default: sgd_training)")
    options = parser.parse_args()
    cli = Cipherscore(BINARY)
    introduce(cli)
    print(HEADER)
    failed = False
    folders = options.folder or [REPOSITORY / "testdata" / "concrete" / "sgd_training"]
    for training in map(Training, folders):
        for train in (our_server, real_server):
            with tempfile.TemporaryDirectory() as work:
                try:
                    line = train(cli, training, Path(work))
                except Exception as error:  # pylint: disable=broad-exception-caught
                    line = f"{training.name}, {train.__name__}: {type(error).__name__}: {error}"
                    failed = True
            failed |= "| NO |" in line
            print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    end_process(main())
