#!/usr/bin/env python3
"""Exchange keys, ciphertexts and results with the real Concrete ML, and compare.

The real `FHEModelClient` makes keys and ciphertexts, `cipherscore evaluate` computes, the real
client decrypts. The integers must be those that Concrete ML computes without encryption, and so
must the scores. With --both-ways, `cipherscore` is also the client of the real `FHEModelServer`.

Prints a Markdown table. The exit code is 1 when anything differs or fails.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import List, Optional, Tuple

import numpy

from concrete.ml.deployment import FHEModelClient, FHEModelServer

REPOSITORY = Path(__file__).resolve().parent.parent
BINARY = REPOSITORY / "target" / "release" / "cipherscore"
SCORE_TOLERANCE = 1e-6

# A probability p near 1 is rounded to multiples of 1.1e-16, and numpy's exp differs from the C
# library's in that place, from one processor to the next; 1 - p keeps the difference whatever its
# size. So much is no error of either side.
LAST_PLACE_OF_ONE = 2 * numpy.finfo(float).eps

# Client and server of each direction.
OUR_SERVER = "Concrete ML -> cipherscore"
REAL_SERVER = "cipherscore -> Concrete ML"


class Case:
    """A folder with a model, rows, and what Concrete ML computes for them."""

    def __init__(self, folder: Path):
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.client_zip = folder / "client.zip"
        self.server_zip = folder / "server.zip"
        self.default_zip = folder / "server.mlir.zip"
        self.rows_csv = folder / "rows.csv"
        self.name: str = expected["case"]
        self.model_class: str = expected["model_class"]
        self.outputs: List[List[int]] = expected["outputs"]
        self.scores: List[List[float]] = expected["scores"]

    def rows(self) -> numpy.ndarray:
        """Read the raw features, each row with the dimensions that the circuit takes."""
        with zipfile.ZipFile(self.client_zip) as archive:
            specs = json.loads(archive.read("client.specs.json"))
        gate = specs["circuits"][0]["inputs"][0]["typeInfo"]["lweCiphertext"]
        _, lines = read_table(self.rows_csv)
        features = numpy.array(lines, dtype=numpy.float64)
        return features.reshape(len(lines), *gate["abstractShape"]["dimensions"])


@dataclass
class Outcome:
    """What one direction of one case gave: a line of the table."""

    case: Case
    direction: str
    integers_equal: bool = False
    #: None where the direction failed.
    score_error: Optional[float] = None
    #: Mean of a row.
    seconds: float = 0.0
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether everything that was compared is right."""
        if self.failure or self.score_error is None:
            return False
        return self.integers_equal and self.score_error <= SCORE_TOLERANCE

    def line(self) -> str:
        """Format as a line of a Markdown table."""
        cells = [
            self.case.name,
            self.case.model_class,
            self.direction,
            str(len(self.case.outputs)),
            "failed" if self.failure else "yes" if self.integers_equal else "NO",
            "-" if self.score_error is None else f"{self.score_error:.1e}",
            f"{self.seconds:.3f}",
        ]
        return f"| {' | '.join(cells)} |"


HEADER = (
    "| case | model | client -> server | rows | integers equal | max relative score error "
    "| evaluate, seconds a row |\n|---|---|---|---|---|---|---|"
)


class Cipherscore:
    """The command line under test."""

    def __init__(self, binary: Path):
        self.binary = binary

    def run(self, *arguments) -> str:
        """Run a subcommand; its error output becomes the error."""
        command = [str(self.binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"cipherscore {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def version(self) -> str:
        """The first line of `--version`."""
        return self.run("--version").strip()

    def import_zip(self, server_zip: Path, target: Path) -> None:
        """Convert Concrete's server.zip into our own artifact."""
        self.run("import", server_zip, "-o", target)

    def evaluate(self, server: Path, key: Path, inputs: List[Path], outputs: List[Path]) -> None:
        """Evaluate rows: for each, a file for every argument and one for the circuit's output."""
        self.run(
            "evaluate",
            *("--server", server),
            *("--evaluation-key", key),
            *repeated("--input", inputs),
            *repeated("--output", outputs),
        )

    def keygen(self, client_zip: Path, keys: Path) -> None:
        """Write `client.key` and `evaluation.key`."""
        self.run("keygen", "--client", client_zip, "--keys", keys)

    def encrypt(self, client_zip: Path, keys: Path, rows: Path, output: Path) -> None:
        """Encrypt a table into a file for each row and argument."""
        self.run(
            "encrypt",
            *("--client", client_zip),
            *("--keys", keys),
            *("--input", rows),
            *("--output", f"{output}/"),
        )

    def decrypt(
        self, client_zip: Path, keys: Path, results: List[Path], output: Path, *flags: str
    ) -> None:
        """Decrypt results, one a row, into a table of scores or of integers."""
        self.run(
            "decrypt",
            *("--client", client_zip),
            *("--keys", keys),
            *repeated("--input", results),
            *("--output", output),
            *flags,
        )


def repeated(flag: str, values: List[Path]) -> List:
    """Give a flag once for each value."""
    return [argument for value in values for argument in (flag, value)]


def as_tuple(value) -> tuple:
    """Concrete ML gives one value bare, and several as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def flat_integers(outputs) -> List[int]:
    """Flatten decrypted outputs, one or several, in C order."""
    arrays = [numpy.asarray(output).flatten(order="C") for output in as_tuple(outputs)]
    return [int(value) for value in numpy.concatenate(arrays)]


def relative_error(scores: List, expected: List) -> float:
    """The largest difference, relative to what was expected."""
    found, wanted = numpy.array(scores, dtype=float), numpy.array(expected)
    if found.shape != wanted.shape:
        raise ValueError(f"scores of shape {found.shape} instead of {wanted.shape}")
    error = numpy.maximum(numpy.abs(found - wanted) - LAST_PLACE_OF_ONE, 0)
    size = numpy.where(wanted == 0, 1, numpy.abs(wanted))
    return float(numpy.max(error / size))


def evaluate_with_ours(
    cli: Cipherscore, case: Case, work: Path, options: argparse.Namespace
) -> Outcome:
    """The real client encrypts and decrypts, our server evaluates."""
    rows = case.rows()
    outcome = Outcome(case, OUR_SERVER)
    client = FHEModelClient(str(case.folder), str(work / "keys"))
    key = work / "evaluation.key"
    key.write_bytes(client.get_serialized_evaluation_keys())
    server = case.default_zip if options.default else case.server_zip
    if options.imported:
        saved, server = server, work / "imported.zip"
        cli.import_zip(saved, server)

    inputs: List[Path] = []
    for row in rows:
        for message in as_tuple(client.quantize_encrypt_serialize(row)):
            inputs.append(work / f"input-{len(inputs)}.bin")
            inputs[-1].write_bytes(message)
    outputs = [work / f"output-{i}.bin" for i in range(len(rows))]
    start = time.perf_counter()
    cli.evaluate(server, key, inputs, outputs)
    outcome.seconds = (time.perf_counter() - start) / len(rows)

    answers = [path.read_bytes() for path in outputs]
    integers = [flat_integers(client.deserialize_decrypt(answer)) for answer in answers]
    scores = [client.deserialize_decrypt_dequantize(answer).flatten() for answer in answers]
    outcome.integers_equal = integers == case.outputs
    outcome.score_error = relative_error(scores, case.scores)
    return outcome


def read_table(path: Path) -> Tuple[List[str], List[List[str]]]:
    """Read the header and the lines of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file))
    return header, lines


def read_integers(path: Path) -> List[List[int]]:
    """Read the table of `decrypt --integers`, whose header is output_0, output_1, ..."""
    header, lines = read_table(path)
    if header != [f"output_{i}" for i in range(len(header))]:
        raise ValueError(f"cipherscore decrypt: unexpected header {header}")
    return [[int(value) for value in line] for line in lines]


def evaluate_with_real(cli: Cipherscore, case: Case, work: Path) -> Outcome:
    """Our client encrypts and decrypts, the real server evaluates."""
    rows = len(case.outputs)
    outcome = Outcome(case, REAL_SERVER)
    keys, encrypted = work / "keys", work / "encrypted"
    cli.keygen(case.client_zip, keys)
    cli.encrypt(case.client_zip, keys, case.rows_csv, encrypted)

    server = FHEModelServer(str(case.folder))
    evaluation_key = (keys / "evaluation.key").read_bytes()
    results = []
    for row in range(rows):
        arguments = sorted(encrypted.glob(f"row-{row:06}-*.bin"))
        messages = tuple(path.read_bytes() for path in arguments)
        start = time.perf_counter()
        answer = server.run(messages, evaluation_key)
        outcome.seconds += (time.perf_counter() - start) / rows
        results.append(work / f"result-{row:06}.bin")
        results[-1].write_bytes(answer)
    integers, scores = work / "integers.csv", work / "scores.csv"
    cli.decrypt(case.client_zip, keys, results, integers, "--integers")
    cli.decrypt(case.client_zip, keys, results, scores)
    outcome.integers_equal = read_integers(integers) == case.outputs
    outcome.score_error = relative_error(read_table(scores)[1], case.scores)
    return outcome


def attempt(
    cli: Cipherscore, case: Case, direction: str, options: argparse.Namespace
) -> Outcome:
    """Try one direction in a folder of its own; a failure must not hide the other cases."""
    with tempfile.TemporaryDirectory() as work:
        try:
            if direction == REAL_SERVER:
                return evaluate_with_real(cli, case, Path(work))
            return evaluate_with_ours(cli, case, Path(work), options)
        except Exception as error:  # pylint: disable=broad-exception-caught
            return Outcome(case, direction, failure=f"{type(error).__name__}: {error}")


def compare(cli: Cipherscore, cases: List[Case], options: argparse.Namespace) -> List[Outcome]:
    """Try all cases in the directions asked for, printing each line as soon as it is known."""
    directions = [OUR_SERVER, REAL_SERVER] if options.both_ways else [OUR_SERVER]
    outcomes = []
    print(HEADER)
    for case in cases:
        for direction in directions:
            outcomes.append(attempt(cli, case, direction, options))
            print(outcomes[-1].line(), flush=True)
    return outcomes


def default_folders() -> List[Path]:
    """All reference cases with expected values that Concrete ML 1.9 opens."""
    reference = REPOSITORY / "testdata" / "concrete"
    folders = sorted(path.parent for path in reference.glob("*/expected.json"))
    return [folder for folder in folders if not folder.name.endswith(("_1_7", "_1_8"))]


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="*",
        type=Path,
        help="case folders (default: all of testdata/concrete of this version)",
    )
    parser.add_argument(
        "--cipherscore",
        type=Path,
        default=REPOSITORY / "target" / "release" / "cipherscore",
        help="the binary (default: target/release/cipherscore)",
    )
    parser.add_argument(
        "--both-ways", action="store_true", help="also our client with the real server"
    )
    parser.add_argument(
        "--imported", action="store_true", help="evaluate the artifact of `cipherscore import`"
    )
    parser.add_argument(
        "--default",
        action="store_true",
        help="evaluate the form that FHEModelDev.save() writes by default",
    )
    options = parser.parse_args()
    if not options.cipherscore.is_file():
        parser.error(f"{options.cipherscore} does not exist: `cargo build --release` first")
    return options


def introduce(cli: Cipherscore) -> None:
    """Print the versions of everything that meets."""
    packages = [f"{name} {version(name)}" for name in ("concrete-ml", "concrete-python")]
    print(f"{cli.version()}, {', '.join(packages)}, Python {sys.version.split()[0]}\n")


def main() -> int:
    """Compare, and return the exit code."""
    options = parse_options()
    cli = Cipherscore(options.cipherscore.resolve())
    introduce(cli)
    cases = [Case(folder) for folder in options.folder or default_folders()]
    outcomes = compare(cli, cases, options)
    for outcome in outcomes:
        if outcome.failure:
            print(f"{outcome.case.name}, {outcome.direction}: {outcome.failure}", file=sys.stderr)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"\n{passed} of {len(outcomes)} passed")
    return 0 if passed == len(outcomes) else 1


def end_process(code: int) -> None:
    """End with this exit code, past all exit handlers.

    Once Concrete's runtime has evaluated a circuit, its own exit handler ends the process with
    code 0, whatever `sys.exit` was given or exception was raised: a mismatch would look right.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end_process(main())
