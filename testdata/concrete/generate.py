#!/usr/bin/env python3
"""Make the reference data of this folder with the real Concrete ML.

Each case is a model that Concrete ML trained, compiled and saved, together with a few rows and
everything that Concrete ML itself computes for them. A reader that shares no code with Concrete ML
is right when it reproduces these numbers.

    pip install concrete-ml==1.9.0        # Python 3.11
    python generate.py                    # every case, into the folder of this script
    python generate.py ridge lasso        # only these
    python generate.py --output DIR       # somewhere else
    python generate.py --ensembles        # the large ones, into ../ensembles

With an older version installed it makes the cases of that version, which `cases.OLDER` has.

Before a case is kept, its zips (as rewritten here, see `rewrite_zip`) are run through the real
`FHEModelClient` and `FHEModelServer`, so that the expected values are those of the encrypted path
too, and every file is searched for paths of the generating machine.
"""

import argparse
import csv
import json
import os
import shutil
import site
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import modules
import numpy
import torch
from cases import CASES, ENSEMBLES, OLDER, Case, TorchCase
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split

from concrete import fhe
from concrete.ml.deployment import FHEModelClient, FHEModelDev, FHEModelServer
from concrete.ml.quantization import QuantizedModule
from concrete.ml.sklearn import KNeighborsClassifier
from concrete.ml.sklearn.base import QuantizedTorchEstimatorMixin
from concrete.ml.torch.compile import build_quantized_module

CONCRETE_ML_VERSION = "1.9.0"

# Of no use to anyone who evaluates a circuit, and full of paths of the generating machine.
DROPPED_MEMBERS = {"compilation_feedback.json", "staticlib.a"}

# Servers of older versions ask for it; there only its places in code are emptied.
FEEDBACK = "compilation_feedback.json"

# Zip files cannot hold an earlier time; a fixed one keeps equal content equal.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)

# How much the scores of the encrypted path may differ from those of the clear one. The integers
# are equal, only the order of floating-point operations may not be.
SCORE_TOLERANCE = 1e-12


def quantizer_of(model: Any, feature: int) -> Any:
    """Trees have a quantizer for each feature, linear models one for all."""
    quantizers = model.input_quantizers
    return quantizers[feature] if len(quantizers) > 1 else quantizers[0]


def tie_value(quantizer: Any, near: int) -> float:
    """Find a value that the quantizer puts exactly between `near` and `near + 1`.

    Rounding halves to even and rounding them away from zero differ only there. Where no
    floating-point number gives an exact tie, the nearest candidate is returned.
    """
    lowest = -quantizer.offset + quantizer.is_narrow
    highest = 2 ** int(quantizer.n_bits) - 1 - quantizer.offset
    target = min(max(near, lowest), highest - 1) + 0.5
    start = quantizer.scale * (target - quantizer.zero_point)
    candidates = [start]
    for direction in (numpy.inf, -numpy.inf):
        value = start
        for _ in range(8):
            value = numpy.nextafter(value, direction)
            candidates.append(value)
    exact = (v for v in candidates if v / quantizer.scale + quantizer.zero_point == target)
    return float(next(exact, start))


def tie_row(case: Case, model: Any, row: numpy.ndarray) -> numpy.ndarray:
    """Move each feature of a row to a tie near its own value, below even and odd integers."""
    quantized = model.quantize_input(shaped(case, row.reshape(1, -1))).flatten()
    return numpy.array(
        [tie_value(quantizer_of(model, i), int(q) + i % 2) for i, q in enumerate(quantized)]
    )


def outside_row(model: Any, features: int, parity: int) -> numpy.ndarray:
    """Make a row whose features lie alternately above and below all that was seen in training."""
    row = []
    for i in range(features):
        quantizer = quantizer_of(model, i)
        margin = 0.5 * (quantizer.rmax - quantizer.rmin) + 1.0
        above = (i + parity) % 2 == 0
        row.append(quantizer.rmax + margin if above else quantizer.rmin - margin)
    return numpy.array(row)


def make_rows(case: Case, model: Any, test: numpy.ndarray) -> numpy.ndarray:
    """Rows of the test set, then ties, then rows out of range."""
    plain, ties, outside = case.rows
    rows = list(test[:plain])
    rows += [tie_row(case, model, test[plain + i]) for i in range(ties)]
    rows += [outside_row(model, test.shape[1], i) for i in range(outside)]
    return numpy.array(rows, dtype=numpy.float64)


def circuit_output_shape(client_zip: Path) -> List[int]:
    """Read the shape of the circuit's only output, for one row."""
    with zipfile.ZipFile(client_zip) as archive:
        specs = json.loads(archive.read("client.specs.json"))
    (circuit,) = specs["circuits"]
    (output,) = circuit["outputs"]
    return output["typeInfo"]["lweCiphertext"]["abstractShape"]["dimensions"]


def kind_of(model: Any) -> str:
    """What the scores of a model are."""
    if isinstance(model, QuantizedModule):
        return "module"
    if isinstance(model, KNeighborsClassifier):
        return "neighbors"
    return "classifier" if is_classifier(model) else "regressor"


def clear_scores(model: Any, rows: numpy.ndarray, outputs: List[numpy.ndarray]) -> numpy.ndarray:
    """Compute scores without encryption.

    Networks take 32-bit floats, and quantise them as such; the client quantises what it is given.
    Rows in 64 bits, such as those on ties, must not become others on the way: the integers of the
    64-bit rows go through the model's own last steps.
    """
    if isinstance(model, (QuantizedModule, QuantizedTorchEstimatorMixin)):
        scores = [model.post_processing(model.dequantize_output(output)) for output in outputs]
        return numpy.array(scores).reshape(len(rows), -1)
    predict = model.predict_proba if kind_of(model) == "classifier" else model.predict
    return predict(rows, fhe="disable").reshape(len(rows), -1)


def expected_values(
    case: Case, model: Any, n_bits: Any, rows: numpy.ndarray, shape: List[int]
) -> Dict[str, Any]:
    """Collect all that Concrete ML computes for the rows without encryption."""
    quantized = model.quantize_input(shaped(case, rows))
    infer = model.quantized_forward if isinstance(model, QuantizedModule) else model._inference
    outputs = [infer(q[numpy.newaxis]) for q in quantized]
    for output in outputs:
        assert list(output.shape) == shape, f"{case.name}: {output.shape} is not {shape}"
    scores = clear_scores(model, rows, outputs)
    assert numpy.isfinite(scores).all(), f"{case.name}: scores are not finite"
    return {
        "case": case.name,
        "model_class": case.model_class.__name__,
        "constructor": case.constructor,
        "data": str(case.data),
        "kind": kind_of(model),
        "n_bits": n_bits,
        "quantized": quantized.reshape(len(rows), -1).tolist(),
        "outputs": [[int(v) for v in output.flatten(order="C")] for output in outputs],
        "output_shape": shape,
        "scores": scores.astype(numpy.float64).tolist(),
    }


def file_offset(segments: List[Tuple[int, int, int]], address: int) -> int:
    """Translate an address of a loaded ELF into an offset in its file."""
    for start, offset, size in segments:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(f"no segment of the ELF holds the address {address:#x}")


def blank_run_paths(elf: bytes) -> bytes:
    """Overwrite the library search paths of an x86-64 ELF with zeros.

    Concrete's linker writes the folder of its own installation there. Only bytes of the string
    table change, so that everything else stays what Concrete made; an empty path is ignored by the
    loader.
    """
    assert elf[:6] == b"\x7fELF\x02\x01", "not a little-endian 64-bit ELF"
    (table,) = struct.unpack_from("<Q", elf, 32)
    entry_size, entries = struct.unpack_from("<HH", elf, 54)
    segments, dynamic = [], []
    for header in range(table, table + entries * entry_size, entry_size):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", elf, header)
        if kind == 1:  # PT_LOAD
            segments.append((address, offset, size))
        elif kind == 2:  # PT_DYNAMIC
            dynamic = list(struct.iter_unpack("<QQ", elf[offset : offset + size]))
    strings = file_offset(segments, dict(dynamic)[5])  # DT_STRTAB
    blanked = bytearray(elf)
    for tag, value in dynamic:
        if tag in (15, 29):  # DT_RPATH, DT_RUNPATH
            start = strings + value
            end = blanked.index(0, start)
            blanked[start:end] = bytes(end - start)
    return bytes(blanked)


def empty_feedback(content: bytes) -> bytes:
    """Take the places in Python's code out of what the compiler says of a circuit."""
    feedback = json.loads(content)
    for circuit in feedback["circuitFeedbacks"]:
        circuit.update(memoryUsagePerLoc={}, statistics=[])
    return json.dumps(feedback).encode()


def rewrite_zip(source: Path, target: Path) -> None:
    """Copy a zip without what tells about the generating machine, in a fixed order and time."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        kept = {FEEDBACK} if version("concrete-ml") in OLDER else set()
        for name in sorted(set(old.namelist()) - (DROPPED_MEMBERS - kept)):
            content = old.read(name)
            if name == FEEDBACK:
                content = empty_feedback(content)
            if name == "sharedlib.so":
                content = blank_run_paths(content)
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix
            info.external_attr = 0o644 << 16
            new.writestr(info, content, compresslevel=9)


def machine_paths() -> List[str]:
    """Folders of this machine that must not be seen in any file."""
    paths = {
        str(Path.home()),
        tempfile.gettempdir(),
        os.getcwd(),
        str(Path(__file__).resolve().parent),
        sys.prefix,
        sys.base_prefix,
        str(Path(fhe.__file__).parent),
        "site-packages",
    }
    paths.update(site.getsitepackages())
    return sorted(path for path in paths if len(path) > 1)


def contents(folder: Path) -> Iterator[Tuple[str, bytes]]:
    """Yield name and bytes of every file of a folder, and of every member of its zips."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield str(path.relative_to(folder)), path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path.name}:{name}", archive.read(name)


def refuse_machine_paths(folder: Path) -> None:
    """Fail when a file holds a path of this machine, as text or as Concrete ML's hexadecimal."""
    for path in machine_paths():
        needle = path.encode()
        for name, content in contents(folder):
            if needle in content or needle.hex().encode() in content:
                raise ValueError(f"{folder.name}/{name} holds a path of this machine: {path}")


def write_rows(path: Path, names: List[str], rows: numpy.ndarray) -> None:
    """Write the rows so that reading them gives the same floating-point numbers."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([repr(float(value)) for value in row] for row in rows)


def write_json(path: Path, value: Any) -> None:
    """Write one field a line, which keeps differences readable."""
    fields = [f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")


def check_in_fhe(case: Case, folder: Path, rows: numpy.ndarray, expected: Dict[str, Any]) -> None:
    """Run the rows through the real client and server, and fail if they give other values."""
    with tempfile.TemporaryDirectory() as keys:
        client = FHEModelClient(str(folder), keys)
        server = FHEModelServer(str(folder))
        evaluation_keys = fhe.EvaluationKeys.deserialize(client.get_serialized_evaluation_keys())
        for i, row in enumerate(shaped(case, rows)):
            message = client.quantize_encrypt_serialize(row[numpy.newaxis])
            answer = server.run(message, evaluation_keys)
            integers = numpy.asarray(client.deserialize_decrypt(answer)).flatten().tolist()
            scores = client.deserialize_decrypt_dequantize(answer).flatten()
            assert integers == expected["outputs"][i], f"{folder.name}: row {i}: {integers}"
            numpy.testing.assert_allclose(scores, expected["scores"][i], rtol=SCORE_TOLERANCE)


def write_golden(folder: Path, row: numpy.ndarray) -> None:
    """Keep one exchange of the real client and server, byte for byte, with its secret key."""
    golden = folder / "golden"
    golden.mkdir()
    with tempfile.TemporaryDirectory() as keys:
        client = FHEModelClient(str(folder), keys)
        evaluation_keys = client.get_serialized_evaluation_keys()
        message = client.quantize_encrypt_serialize(row.reshape(1, -1))
        answer = FHEModelServer(str(folder)).run(message, evaluation_keys)
        integers = numpy.asarray(client.deserialize_decrypt(answer)).flatten().tolist()
        secret_keys = client.client.keys.serialize()
    (golden / "evaluation_keys.bin").write_bytes(evaluation_keys)
    (golden / "secret_keys.bin").write_bytes(secret_keys)
    (golden / "input.bin").write_bytes(message)
    (golden / "result.bin").write_bytes(answer)
    write_json(golden / "golden.json", {"row": 0, "outputs": integers})
    (golden / "README.md").write_text(
        "One exchange of the real `FHEModelClient` and `FHEModelServer` about row 0 of\n"
        "`rows.csv`. `secret_keys.bin` is a Concrete keyset with the client's secret key: a\n"
        "throw-away key made for this test, which has never protected anything.\n",
        encoding="utf-8",
    )


def shaped(case: Case, rows: numpy.ndarray) -> numpy.ndarray:
    """Give flat rows the dimensions that the model takes."""
    return rows.reshape(len(rows), *case.shape) if isinstance(case, TorchCase) else rows


def train_model(case: Case, train: numpy.ndarray, targets: numpy.ndarray) -> Tuple[Any, Any]:
    """Return a trained model whose quantisers are known, and its numbers of bits."""
    torch.manual_seed(0)
    numpy.random.seed(0)
    torch.set_num_threads(1)
    if isinstance(case, TorchCase):
        module = case.module()
        inputs = shaped(case, train)
        modules.train(module, inputs, targets)
        samples = torch.tensor(inputs, dtype=torch.float32)
        # The first half of `compile_torch_model`; the second is the call of `compile` below.
        return build_quantized_module(module, samples, **case.arguments), case.arguments["n_bits"]
    model = case.model_class(**case.arguments)
    if isinstance(model, QuantizedTorchEstimatorMixin):
        if not is_classifier(model):
            targets = targets.reshape(-1, 1).astype(numpy.float32)
        model.fit(train.astype(numpy.float32), targets)
        bits = {"inputs": "module__n_a_bits", "weights": "module__n_w_bits"}
        return model, {name: case.arguments[argument] for name, argument in bits.items()}
    n_bits = model.n_bits
    model.fit(train, targets)
    return model, n_bits


#: Of each form's name, whether it is Concrete ML's default, which is not compiled.
BOTH_FORMS = {"server.zip": False, "server.mlir.zip": True}
ONLY_DEFAULT = {"server.zip": True}
ONLY_COMPILED = {"server.zip": False}


def add_specs(server: Path, client: Path) -> None:
    """Give a `server.zip` the specs of the `client.zip`, which older versions leave out by default."""
    with zipfile.ZipFile(server, "a") as archive, zipfile.ZipFile(client) as source:
        if "client.specs.json" not in archive.namelist():
            archive.writestr("client.specs.json", source.read("client.specs.json"))


def save(model: Any, folder: Path, mode: str, forms: Dict[str, bool]) -> None:
    """Save a compiled model in each form. The client.zip is the same of all."""
    for name, via_mlir in forms.items():
        with tempfile.TemporaryDirectory() as saved:
            FHEModelDev(saved, model).save(mode=mode, via_mlir=via_mlir)
            add_specs(Path(saved) / "server.zip", Path(saved) / "client.zip")
            rewrite_zip(Path(saved) / "server.zip", folder / name)
            rewrite_zip(Path(saved) / "client.zip", folder / "client.zip")


def generate(case: Case, folder: Path) -> None:
    """Train, compile and save a case, and write what is expected of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    features, targets, names = case.data.load()
    few = dict(train_size=case.train_size, stratify=targets) if case.train_size else {}
    train, test, train_targets, _ = train_test_split(features, targets, random_state=0, **few)
    model, n_bits = train_model(case, train, train_targets)
    rows = make_rows(case, model, test)
    # The circuit's integers are as wide as the values seen at compilation: show it the rows that
    # lie out of range too, whose sums may need a bit more than those of the training set.
    model.compile(shaped(case, numpy.vstack([train, rows])))
    forms = ONLY_DEFAULT if case.via_mlir else ONLY_COMPILED if case.refused else BOTH_FORMS
    save(model, folder, "inference", forms)
    if forms == BOTH_FORMS:
        shape = circuit_output_shape(folder / "client.zip")
        expected = expected_values(case, model, n_bits, rows, shape)
        write_rows(folder / "rows.csv", names, rows)
        write_json(folder / "expected.json", expected)
        check_in_fhe(case, folder, rows, expected)
    if case.golden:
        write_golden(folder, rows[0])
    refuse_machine_paths(folder)


def generate_all(cases: List[Case], output: Path) -> None:
    """Generate cases one after the other, each into its own folder."""
    for case in cases:
        start = time.monotonic()
        generate(case, output / case.name)
        size = sum(p.stat().st_size for p in (output / case.name).rglob("*") if p.is_file())
        seconds = time.monotonic() - start
        print(f"{case.name}: {size} bytes, {seconds:.1f} s", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help="names of cases (default: all)")
    parser.add_argument("--output", type=Path, help="(default: where the cases are kept)")
    parser.add_argument("--ensembles", action="store_true", help="the large ensembles instead")
    options = parser.parse_args()
    here = Path(__file__).resolve().parent
    found = version("concrete-ml")
    if found not in (CONCRETE_ML_VERSION, *OLDER):
        sys.exit(f"this needs concrete-ml=={CONCRETE_ML_VERSION}, found {found}")
    cases, kept = (ENSEMBLES, here.parent / "ensembles") if options.ensembles else (CASES, here)
    cases = OLDER.get(found, cases)
    by_name = {case.name: case for case in cases}
    unknown = set(options.case) - set(by_name)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    try:
        names = options.case or by_name
        generate_all([by_name[name] for name in names], options.output or kept)
    except Exception:  # pylint: disable=broad-exception-caught
        # Once Concrete's runtime has evaluated a circuit, its own exit handler ends the process
        # with code 0, whatever was raised: a refused case would look like a good one.
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
