"""Folders that Concrete ML saved. What Concrete ML computes for their rows lies beside them."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTDATA

from cipherscore import ArtifactError, KeysError, RowsError, _native
from cipherscore.deployment import FHEModelClient, FHEModelServer

RAW = platform.machine() == "x86_64" and sys.platform == "linux"


def case(name):
    """Rows of a model, and what Concrete ML decrypts for them."""
    folder = TESTDATA / "concrete" / name
    with open(folder / "rows.csv", encoding="utf-8") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.float64)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return folder, rows, np.array(expected["outputs"]), np.array(expected["scores"])


@pytest.fixture
def imported(tmp_path):
    """A folder whose `server.zip` holds no machine code, which any processor opens."""

    def make(name):
        server = (TESTDATA / "imported" / f"{name}.zip").read_bytes()
        (tmp_path / "server.zip").write_bytes(server)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "name", ["linear_regression", "decision_tree_classifier"]
)
def test_many_rows(imported, name):
    folder, rows, outputs, scores = case(name)
    client, server = FHEModelClient(folder), FHEModelServer(imported(name))
    keys = client.get_serialized_evaluation_keys()
    result = server.run(client.quantize_encrypt_serialize(rows), keys)
    np.testing.assert_array_equal(client.deserialize_decrypt(result), outputs)
    found = client.deserialize_decrypt_dequantize(result).reshape(scores.shape)
    np.testing.assert_allclose(found, scores, rtol=1e-6)


def quantisers(folder):
    """Scale, zero point, smallest and largest integer of each input."""
    with zipfile.ZipFile(folder / "client.zip") as zipped:
        processing = json.loads(zipped.read("serialized_processing.json"))

    def number(value):
        return value["serialized_value"] if isinstance(value, dict) else value

    for typed in processing["input_quantizers"]:
        each = {key: number(value) for key, value in typed["serialized_value"].items()}
        low = -each["offset"]
        yield each["scale"], each["zero_point"], low, low + 2 ** each["n_bits"] - 1


@pytest.mark.parametrize("name", ["linear_regression", "logistic_regression_binary"])
def test_rows_are_quantised_in_their_own_precision(tmp_path, name):
    """As Concrete ML does, which computes in the type of the array: by the border of two integers
    a 32-bit float may have the other one."""
    folder, rows, _, _ = case(name)
    [(scale, zero, low, high)] = quantisers(folder)
    features = rows.shape[1]
    steps = np.resize(np.arange(low, high), (64, features))
    border = ((steps + 0.5 - zero) * scale).astype(np.float32)

    def integers(kind):
        real = border.astype(kind) / kind(scale) + kind(zero)
        return np.clip(np.rint(real), low, high).astype(np.int64)

    assert (integers(np.float32) != integers(np.float64)).any()
    shutil.copy(folder / "server.mlir.zip", tmp_path / "server.zip")
    client, server = FHEModelClient(folder), FHEModelServer(tmp_path)
    keys = client.get_serialized_evaluation_keys()

    def outputs(rows):
        return client.deserialize_decrypt(server.run(client.quantize_encrypt_serialize(rows), keys))

    for kind in (np.float32, np.float64):
        middle = (integers(kind) - zero) * scale
        np.testing.assert_array_equal(outputs(border.astype(kind)), outputs(middle))
    assert (outputs(border) != outputs(border.astype(np.float64))).any()
    with pytest.raises(RowsError, match=r"astype\(numpy.float32\)"):
        client.quantize_encrypt_serialize(border.astype(np.float16))


def test_rows_of_another_precision_are_refused_whatever_they_are_in():
    pandas = pytest.importorskip("pandas")
    folder, rows, _, _ = case("linear_regression")
    client = FHEModelClient(folder)
    for kind in (np.float16, np.longdouble):
        values = rows.astype(kind)
        scalars = [list(row) for row in values]
        for held in [scalars, pandas.DataFrame(values), np.array(scalars, dtype=object)]:
            with pytest.raises(RowsError, match=r"astype\(numpy.float32\)"):
                client.rows(held)
    for held in [rows.tolist(), pandas.DataFrame(rows), rows.astype(object)]:
        np.testing.assert_array_equal(client.rows(held), rows)
    assert client.rows(pandas.DataFrame(rows.astype(np.float32))).dtype == np.float32


def test_a_model_that_is_saved_again_is_another_one(tmp_path):
    def save(name):
        for file in ("client.zip", "server.zip"):
            shutil.copy(TESTDATA / "concrete" / name / file, tmp_path / file)
        return FHEModelClient(TESTDATA / "concrete" / name).model_id

    first = save("linear_regression")
    client, given = FHEModelClient(tmp_path), FHEModelClient(tmp_path, model_id="0" * 64)
    assert client.model_id == first
    second = save("decision_tree_classifier")
    assert second != first
    client.load()
    assert client.model_id == second
    # What the caller says stays.
    given.load()
    assert given.model_id == "0" * 64


def test_rows_of_another_shape_are_refused():
    """Flattened, they would be scored with values at the wrong features."""
    folder, rows, _, _ = case("torch_convolutions")
    client = FHEModelClient(folder)
    shape = client.client.row_shape
    assert len(shape) == 3 and np.prod(shape) == rows.shape[1]
    images = rows.reshape(-1, *shape)
    np.testing.assert_array_equal(client.rows(images), client.rows(rows))
    for wrong in [np.moveaxis(images, 1, -1), images[..., None], images.reshape(len(rows), -1, 2)]:
        with pytest.raises(RowsError, match="another order"):
            client.quantize_encrypt_serialize(wrong)
    folder, rows, _, _ = case("linear_regression")
    client = FHEModelClient(folder)
    features = rows.shape[1]
    with pytest.raises(RowsError, match=rf"\(rows, {features}\)"):
        client.quantize_encrypt_serialize(np.zeros((3, features // 2, 2)))


def test_one_row_is_serialised_as_concrete_does(imported):
    folder, rows, outputs, _ = case("linear_regression")
    client, server = FHEModelClient(folder), FHEModelServer(imported("linear_regression"))
    encrypted = client.quantize_encrypt_serialize(rows[:1])
    # Cap'n Proto: number of segments less one. A file of rows begins with its name.
    assert encrypted[:4] == bytes(4)
    assert client.quantize_encrypt_serialize(rows[:2])[:6] == b"CSROWS"
    result = server.run(encrypted, client.get_serialized_evaluation_keys())
    np.testing.assert_array_equal(client.deserialize_decrypt(result), outputs[:1])


def cpu_flags():
    return Path("/proc/cpuinfo").read_text(encoding="ascii")


@pytest.mark.skipif(not RAW, reason="machine code for x86-64 Linux")
def test_a_raw_zip_is_recorded_in_a_locked_child():
    folder, rows, outputs, _ = case("decision_tree_classifier")
    try:
        server = FHEModelServer(folder)
    except ArtifactError as error:
        # The zip was compiled on a processor with AVX-512: another one ends the child, and it is said why.
        assert "crashed with SIGILL" in str(error) and "avx512" not in cpu_flags()
        return
    client = FHEModelClient(folder)
    keys = client.get_serialized_evaluation_keys()
    result = server.run(client.quantize_encrypt_serialize(rows), keys)
    np.testing.assert_array_equal(client.deserialize_decrypt(result), outputs)
    assert server.model_id == client.model_id


@pytest.mark.skipif(not RAW, reason="there is nothing to record")
def test_the_recorder_refuses_a_process_with_threads():
    code = (
        "import threading, sys\n"
        "from cipherscore import _native\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "_native.record_and_exit()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must be alone" in done.stderr


def test_a_circuit_that_is_not_compiled_is_taken_as_it_is(tmp_path):
    import hashlib

    folder = TESTDATA / "concrete" / "via_mlir"
    server, client = FHEModelServer(folder), FHEModelClient(folder, tmp_path)
    original = (folder / "server.zip").read_bytes()
    assert _native.server_model_id(original) == hashlib.sha256(original).hexdigest()
    keys = client.get_serialized_evaluation_keys()
    row = np.array([[5.1, 3.5, 1.4, 0.2]])
    answer = server.run(client.quantize_encrypt_serialize(row), keys)
    scores = client.deserialize_decrypt_dequantize(answer)
    assert scores.shape == (1, 3) and scores.argmax() == 0


def test_the_model_id_is_that_of_the_original_zip(imported):
    import hashlib

    name = "decision_tree_classifier"
    original = (TESTDATA / "concrete" / name / "server.zip").read_bytes()
    expected = hashlib.sha256(original).hexdigest()
    assert FHEModelClient(TESTDATA / "concrete" / name).model_id == expected
    imported_zip = (imported(name) / "server.zip").read_bytes()
    assert _native.server_model_id(imported_zip) == expected


def test_keys_of_tfhe_rs_are_refused():
    with pytest.raises(KeysError, match="TFHE-rs"):
        FHEModelClient(TESTDATA / "concrete" / "linear_regression").get_serialized_evaluation_keys(
            include_tfhers_key=True
        )


def test_ctrl_c_ends_a_long_call():
    """Making these keys takes seconds; the interpreter must not wait for them."""
    folder = TESTDATA / "concrete" / "decision_tree_classifier"
    code = (
        "import os, signal, threading\n"
        # Whoever runs the tests in the background has made the signal one that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cipherscore.deployment import FHEModelClient\n"
        f"client = FHEModelClient({str(folder)!r})\n"
        "threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    while True:\n"
        "        client.generate_private_and_evaluation_keys(force=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "interrupted", done.stderr
