#!/usr/bin/env python3
"""Run the example of Concrete ML's documentation, and serve the folder that it saves by a worker.

The example stands in `docs/guides/client_server.md` of Concrete ML's repository. It is run as it is,
up to and including `dev.save()`, which saves a circuit that is not compiled. The folder goes to a
worker process; the real `FHEModelClient` makes keys and encrypts rows, `cipherscore submit` sends
them through RabbitMQ, the real client decrypts. Integers and probabilities must be those that the
model computes without encryption.

    git clone https://github.com/zama-ai/concrete-ml
    cargo build --release
    cargo xtask services python interop/concrete_ml_document.py concrete-ml/docs/guides/client_server.md

The example names the folder that it writes; it must not be there, and is removed. The exit code is 1
when anything differs or fails.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Dict

import numpy
from concrete_ml_roundtrip import (
    BINARY,
    SCORE_TOLERANCE,
    Cipherscore,
    as_tuple,
    end_process,
    flat_integers,
    introduce,
    relative_error,
    repeated,
)

from concrete.ml.deployment import FHEModelClient

LAST = "dev.save()"
START_SECONDS = 120
ROWS = 3


def example(document: Path) -> str:
    """The example's code up to the line that saves."""
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        lines = block.splitlines()
        if LAST in lines:
            return "\n".join(lines[: lines.index(LAST) + 1]) + "\n"
    raise ValueError(f"{document} has no example with a line {LAST!r}")


def run_example(document: Path) -> Dict[str, Any]:
    """Run it, and return what it defines."""
    code = example(document)
    print(f"{len(code.splitlines())} lines of {document.name}, unchanged")
    names: Dict[str, Any] = {"__name__": "__main__"}
    # The document is the reader's own copy, and running it is what this is for.
    exec(compile(code, str(document), "exec"), names)  # pylint: disable=exec-used
    return names


def start_worker(cli: Cipherscore, models: Path, log: Path) -> subprocess.Popen:
    """Start a worker process and wait until it is listed; URLs are in the environment."""
    command = [cli.binary, "worker", "start", "--models", models, "--set", "health.listen="]
    command += ["--set", "worker.name=document"]
    with open(log, "wb") as file:
        worker = subprocess.Popen(command, stderr=file)
    deadline = time.monotonic() + START_SECONDS
    while "document" not in cli.run("status"):
        if worker.poll() is not None or time.monotonic() > deadline:
            worker.kill()
            raise RuntimeError(f"the worker does not begin:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.2)
    return worker


def submit(cli: Cipherscore, folder: Path, model: Any, rows: numpy.ndarray, work: Path) -> bool:
    """The real client on both ends; whether everything is as in the clear."""
    client = FHEModelClient(str(folder), str(work / "keys"))
    key = work / "evaluation.key"
    key.write_bytes(client.get_serialized_evaluation_keys())
    inputs = [work / f"input-{number}.bin" for number in range(len(rows))]
    outputs = [work / f"output-{number}.bin" for number in range(len(rows))]
    for path, number in zip(inputs, range(len(rows))):
        (message,) = as_tuple(client.quantize_encrypt_serialize(rows[number : number + 1]))
        path.write_bytes(message)
    model_id = hashlib.sha256((folder / "server.zip").read_bytes()).hexdigest()
    start = time.perf_counter()
    cli.run(
        "submit",
        *("--model", model_id),
        *("--evaluation-key", key),
        *repeated("--input", inputs),
        *repeated("--output", outputs),
    )
    seconds = time.perf_counter() - start
    answers = [path.read_bytes() for path in outputs]
    clear = model.quantize_input(rows)
    expected = [
        flat_integers(model._inference(clear[number : number + 1]))  # pylint: disable=protected-access
        for number in range(len(rows))
    ]
    integers_equal = [flat_integers(client.deserialize_decrypt(each)) for each in answers] == expected
    scores = numpy.vstack([client.deserialize_decrypt_dequantize(each) for each in answers])
    error = relative_error(scores, model.predict_proba(rows))
    print(f"{len(rows)} rows in {seconds:.1f} s, with the upload of a key of {key.stat().st_size >> 20} MiB")
    print(f"integers equal: {'yes' if integers_equal else 'NO'}; largest relative score error: {error:.1e}")
    return integers_equal and error <= SCORE_TOLERANCE


def serve(cli: Cipherscore, names: Dict[str, Any], folder: Path) -> bool:
    """Serve the folder by a worker, and score rows through the queue."""
    rows = numpy.random.default_rng(7).random((ROWS, names["X"].shape[1]))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        (work / "models" / "document").mkdir(parents=True)
        shutil.copy(folder / "server.zip", work / "models" / "document")
        for line in cli.run("inspect", folder / "server.zip").splitlines():
            if line.split(maxsplit=1)[0] in ("kind", "bootstraps", "noise"):
                print(line)
        worker = start_worker(cli, work / "models", work / "worker.log")
        try:
            return submit(cli, folder, names["model"], rows, work)
        finally:
            worker.terminate()
            worker.wait(START_SECONDS)


def main() -> int:
    """Run, compare, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("document", type=Path, help="docs/guides/client_server.md of Concrete ML")
    options = parser.parse_args()
    cli = Cipherscore(BINARY)
    introduce(cli)
    names = run_example(options.document)
    folder = Path(names["fhe_directory"])
    try:
        passed = serve(cli, names, folder)
    finally:
        shutil.rmtree(folder)
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        CODE = main()
    except Exception:  # pylint: disable=broad-exception-caught
        traceback.print_exc()
        CODE = 1
    end_process(CODE)
