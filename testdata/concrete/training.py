#!/usr/bin/env python3
"""Make the reference data of encrypted training with the real Concrete ML.

The training function of `SGDClassifier(fit_encrypted=True)` takes a batch of rows, their labels,
the weights and the bias, and gives new weights and a new bias: one iteration of gradient descent.
Its encrypted outputs are inputs of the next iteration. `sgd_training` holds the function, batches,
and what Concrete ML computes for them without encryption.

    pip install concrete-ml==1.9.0        # Python 3.11
    python training.py                    # into ./sgd_training
    python training.py --output DIR       # somewhere else
    python training.py --default DIR      # a larger function, with Concrete ML's own defaults

Before the data is kept, its zips go through all iterations with the real `FHEModelClient` and
`FHEModelServer`, outputs fed back without decryption. With `--default` a bootstrap fails with
probability 0.01, which is what Concrete ML gives training functions: such a function is no reference
data, and the result of this check is printed and not demanded.
"""

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy
from generate import BOTH_FORMS, refuse_machine_paths, save, write_json, write_rows
from sklearn import datasets

from concrete import fhe
from concrete.ml.deployment import FHEModelClient, FHEModelServer
from concrete.ml.sklearn import SGDClassifier

PARAMETERS_RANGE = (-1.0, 1.0)


@dataclass
class Function:
    """How a function is made."""

    name: str
    #: Columns of iris.
    features: Tuple[int, ...]
    batch_size: int
    #: Iterations, and so batches.
    iterations: int
    #: Attributes that Concrete ML says to set by hand.
    attributes: Dict[str, Any]


# A bootstrap fails with at most this probability, so that encrypted and clear training are equal.
# Few bits and rows keep the evaluation keys, and an iteration, small enough for tests.
SMALL = Function(
    "sgd_training",
    (2, 3),
    4,
    4,
    dict(n_bits_training=4, rounding_training=4, training_p_error=2.0**-22),
)
DEFAULT = Function("sgd_training_default", (0, 1, 2, 3), 8, 2, {})


def load(features: Tuple[int, ...]) -> Tuple[numpy.ndarray, numpy.ndarray, List[str]]:
    """Iris, without its third class, within the range of the parameters.

    Rows at the very ends of the range would need larger keys.
    """
    iris = datasets.load_iris()
    kept = iris.target < 2
    rows, labels = iris.data[kept][:, features], iris.target[kept]
    low, high = rows.min(axis=0), rows.max(axis=0)
    names = [iris.feature_names[i].split(" (")[0].replace(" ", "_") for i in features]
    # Rounded, so that the files are readable; the rounded values are the data.
    return numpy.round(1.8 * (rows - low) / (high - low) - 0.9, 4), labels.astype(float), names


def write_table(path: Path, names: List[str], value: numpy.ndarray) -> None:
    """Write a tensor: its last dimension across, all others down."""
    write_rows(path, names, value.reshape(-1, value.shape[-1]))


def flat(value: numpy.ndarray) -> List:
    """Elements in C order."""
    return value.flatten(order="C").tolist()


def train(module: Any, batches: List, weights: numpy.ndarray, bias: numpy.ndarray) -> List[Dict]:
    """All iterations without encryption, on quantised values."""
    _, _, q_weights, q_bias = module.quantize_input(None, None, weights, bias)
    iterations = []
    for rows, labels in batches:
        q_rows, q_labels, _, _ = module.quantize_input(rows, labels, None, None)
        inputs = [q_rows, q_labels, q_weights, q_bias]
        q_weights, q_bias = module.quantized_forward(*inputs, fhe="disable")
        real = module.dequantize_output(q_weights, q_bias)
        iterations.append(
            {
                "quantized": [flat(value) for value in inputs],
                "outputs": [flat(value) for value in (q_weights, q_bias)],
                "values": [flat(value) for value in real],
            }
        )
    return iterations


def train_in_fhe(folder: Path, batches: List, weights: numpy.ndarray, bias: numpy.ndarray) -> List:
    """All iterations with the real client and server; decrypted integers of each."""
    with tempfile.TemporaryDirectory() as keys:
        client, server = FHEModelClient(str(folder), keys), FHEModelServer(str(folder))
        evaluation_keys = fhe.EvaluationKeys.deserialize(client.get_serialized_evaluation_keys())
        _, _, *state = client.quantize_encrypt_serialize(None, None, weights, bias)
        found = []
        for rows, labels in batches:
            x, y, _, _ = client.quantize_encrypt_serialize(rows, labels, None, None)
            state = server.run((x, y, *state), evaluation_keys)
            decrypted = client.deserialize_decrypt(*state)
            found.append([[int(v) for v in flat(value)] for value in decrypted])
        return found


def make_batches(function: Function, rows: numpy.ndarray, labels: numpy.ndarray) -> List:
    """Batches with as many rows of either class, in the shapes that the function takes."""
    generator = numpy.random.default_rng(0)
    half = function.batch_size // 2
    batches = []
    for _ in range(function.iterations):
        chosen = [generator.choice(numpy.flatnonzero(labels == c), half, False) for c in (0, 1)]
        index = generator.permutation(numpy.concatenate(chosen))
        batches.append((rows[index][None, :, :], labels[index][None, :, None]))
    return batches


def generate(function: Function, folder: Path, demand: bool) -> None:
    """Compile and save a function, and write what is expected of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, labels, names = load(function.features)
    model = SGDClassifier(
        fit_encrypted=True, parameters_range=PARAMETERS_RANGE, random_state=0, max_iter=1
    )
    for name, value in dict(batch_size=function.batch_size, **function.attributes).items():
        setattr(model, name, value)
    model.fit(rows, labels.astype(int), fhe="disable")
    save(model, folder, "training", BOTH_FORMS)
    generator = numpy.random.default_rng(1)
    weights = numpy.round(generator.uniform(*PARAMETERS_RANGE, (1, rows.shape[1], 1)), 4)
    bias = numpy.round(generator.uniform(*PARAMETERS_RANGE, (1, 1, 1)), 4)
    batches = make_batches(function, rows, labels)
    iterations = train(model.training_quantized_module, batches, weights, bias)
    last_weights, last_bias = iterations[-1]["values"]
    predicted = rows @ numpy.array(last_weights) + last_bias[0] > 0
    write_table(folder / "x.csv", names, numpy.concatenate([x for x, _ in batches]))
    write_table(folder / "y.csv", ["label"], numpy.concatenate([y for _, y in batches]))
    write_table(folder / "weights.csv", ["weight"], weights)
    write_table(folder / "bias.csv", ["bias"], bias)
    write_table(folder / "rows.csv", [*names, "label"], numpy.column_stack([rows, labels]))
    write_table(folder / "trained_weights.csv", ["weights"], numpy.array(last_weights)[:, None])
    write_table(folder / "trained_bias.csv", ["bias"], numpy.array(last_bias)[:, None])
    shapes = [list(v.shape) for v in (*batches[0], weights, bias)]
    training = {
        "case": function.name,
        "attributes": dict(batch_size=function.batch_size, **function.attributes),
        "input_shapes": shapes,
        "output_shapes": shapes[2:],
        "iterations": iterations,
        "accuracy": float((predicted == labels).mean()),
    }
    write_json(folder / "training.json", training)
    found = train_in_fhe(folder, batches, weights, bias)
    equal = [f == i["outputs"] for f, i in zip(found, iterations)]
    print(f"{function.name}: accuracy {training['accuracy']}, encrypted run equal: {equal}")
    assert all(equal) or not demand, f"expected {iterations}, found {found}"
    refuse_machine_paths(folder)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="(default: sgd_training beside this script)")
    parser.add_argument("--default", type=Path, help="the larger function instead, into this folder")
    options = parser.parse_args()
    here = Path(__file__).resolve().parent
    try:
        if options.default:
            generate(DEFAULT, options.default, demand=False)
        else:
            generate(SMALL, options.output or here / SMALL.name, demand=True)
    except Exception:  # pylint: disable=broad-exception-caught
        # Concrete's runtime ends the process with code 0, whatever was raised (see generate.py).
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
