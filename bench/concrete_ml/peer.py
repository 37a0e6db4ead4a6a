#!/usr/bin/env python3
"""Concrete ML's side of `cipherscore-bench concrete-ml`: its real client and its real server.

Requests come on standard input, one JSON object a line; each is answered by one line on standard
output, {"error": ...} where it failed. Keys and ciphertexts go through files. Seconds are wall time
of the call alone, without these files.
"""

import json
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from concrete import fhe
from concrete.ml import sklearn as models
from concrete.ml.deployment import FHEModelClient, FHEModelDev, FHEModelServer

#: What each model is.
CATALOGUE = Path(__file__).with_name("models.json")

#: Training features and targets, and rows to score.
Data = Tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]


def split(features: numpy.ndarray, targets: numpy.ndarray) -> Data:
    """Three quarters are trained on, the rest is scored."""
    train, test, train_targets, _ = train_test_split(features, targets, random_state=0)
    return train, train_targets, test


def standardised(features: numpy.ndarray, targets: numpy.ndarray) -> Data:
    """The same for networks, which learn little from features of different scales."""
    train, targets, test = split(features, targets)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), targets, scaler.transform(test)


def random_rows() -> Data:
    """What Concrete ML's guide to client and server trains on, from a fixed seed."""
    source = numpy.random.RandomState(0)
    features, targets = source.rand(100, 20), source.randint(0, 2, size=100)
    return features, targets, source.rand(100, 20)


def synthetic() -> Data:
    """What Concrete ML's introduction trains on."""
    return split(
        *datasets.make_classification(n_samples=100, class_sep=2, n_features=30, random_state=42)
    )


def shipped(load: Callable, prepare: Callable[..., Data] = split) -> Callable[[], Data]:
    """One of scikit-learn's own."""
    return lambda: prepare(*load(return_X_y=True))


#: By the names that models have for them: a description, and how they are loaded.
DATA: Dict[str, Tuple[str, Callable[[], Data]]] = {
    "breast_cancer": ("breast cancer, 30 features", shipped(datasets.load_breast_cancer)),
    "diabetes": ("diabetes, 10 features", shipped(datasets.load_diabetes)),
    "digits": ("digits, 64 features", shipped(datasets.load_digits)),
    "iris": ("iris, 4 features", shipped(datasets.load_iris)),
    "breast_cancer_standardised": (
        "breast cancer, 30 features, standardised",
        shipped(datasets.load_breast_cancer, standardised),
    ),
    "iris_standardised": (
        "iris, 4 features, standardised",
        shipped(datasets.load_iris, standardised),
    ),
    "wine": ("wine, 13 features", shipped(datasets.load_wine)),
    "random": ("rand(100, 20)", random_rows),
    "synthetic": ("make_classification(100, 30 features, class_sep=2)", synthetic),
}


def versions() -> Dict[str, str]:
    """Of everything that makes a compiled model what it is."""
    found = {name: version(name) for name in ("concrete-ml", "concrete-python")}
    return {**found, "python": sys.version.split()[0]}


def as_tuple(value: Any) -> tuple:
    """Concrete ML gives one value bare, and several as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def flat_integers(outputs: Any) -> List[int]:
    """Flatten outputs, one or several, in C order."""
    arrays = [numpy.asarray(output).flatten(order="C") for output in as_tuple(outputs)]
    return [int(value) for value in numpy.concatenate(arrays)]


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


class Peer:
    """One model with its client and its server."""

    folder: Path
    exchange: Path
    expected: Dict[str, Any]
    client: FHEModelClient
    server: FHEModelServer
    serialised_keys: bytes
    keys: fhe.EvaluationKeys
    rows: List[Tuple[bytes, ...]]

    def versions(self, _: Dict) -> Dict:
        """Name what runs here."""
        return versions()

    def build(self, request: Dict) -> Dict:
        """Train and compile the model, unless its folder has it already."""
        self.folder = Path(request["folder"])
        catalogue = json.loads(CATALOGUE.read_text(encoding="utf-8"))
        (model,) = (model for model in catalogue if model["name"] == request["name"])
        recipe = {name: model[name] for name in ("class", "arguments", "data")}
        recipe.update(rows=request["rows"], versions=versions())
        path = self.folder / "expected.json"
        if path.exists():
            self.expected = json.loads(path.read_text(encoding="utf-8"))
        if not path.exists() or self.expected["recipe"] != recipe:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.expected = self.train(recipe)
            # The last file: with it, the folder is complete.
            path.write_text(json.dumps(self.expected), encoding="utf-8")
        return {name: self.expected[name] for name in ("constructor", "data", "outputs")}

    def train(self, recipe: Dict) -> Dict:
        """Train, compile and save, and compute what the clear model gives for the rows."""
        arguments = recipe["arguments"]
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        constructor = f"{recipe['class']}({listed})"
        description, load = DATA[recipe["data"]]
        train, targets, test = load()
        say(f"  training and compiling {constructor}")
        # Networks take their first weights from here.
        torch.manual_seed(0)
        model = getattr(models, recipe["class"])(**arguments)
        model.fit(train, targets)
        model.compile(train)
        FHEModelDev(str(self.folder), model).save(via_mlir=False)
        rows = numpy.array([test[i % len(test)] for i in range(recipe["rows"])])
        quantised = model.quantize_input(rows)
        # pylint: disable-next=protected-access
        outputs = [flat_integers(model._inference(row.reshape(1, -1))) for row in quantised]
        return {
            "recipe": recipe,
            "constructor": constructor,
            "data": description,
            "rows": rows.tolist(),
            "outputs": outputs,
        }

    def open(self, request: Dict) -> Dict:
        """Load client and server, make keys, encrypt the rows."""
        self.exchange = Path(request["exchange"])
        start = time.perf_counter()
        self.server = FHEModelServer(str(self.folder))
        load_seconds = time.perf_counter() - start
        self.client = FHEModelClient(str(self.folder))
        say("  making keys")
        start = time.perf_counter()
        self.serialised_keys = self.client.get_serialized_evaluation_keys()
        key_seconds = time.perf_counter() - start
        self.keys = fhe.EvaluationKeys.deserialize(self.serialised_keys)
        evaluation_key = self.exchange / "evaluation.key"
        evaluation_key.write_bytes(self.serialised_keys)
        rows = numpy.array(self.expected["rows"])
        encrypt = self.client.quantize_encrypt_serialize
        self.rows = [as_tuple(encrypt(row.reshape(1, -1))) for row in rows]
        return {
            "load_seconds": load_seconds,
            "key_seconds": key_seconds,
            "evaluation_key": str(evaluation_key),
            "rows": [self.write(f"row-{i}", row) for i, row in enumerate(self.rows)],
        }

    def write(self, name: str, values: Tuple[bytes, ...]) -> List[str]:
        """Write values into the folder of exchange."""
        paths = [self.exchange / f"{name}-{i}.bin" for i in range(len(values))]
        for path, value in zip(paths, values):
            path.write_bytes(value)
        return [str(path) for path in paths]

    def deserialise(self, _: Dict) -> Dict:
        """Deserialise the keys once more."""
        start = time.perf_counter()
        keys = fhe.EvaluationKeys.deserialize(self.serialised_keys)
        seconds = time.perf_counter() - start
        del keys
        return {"seconds": seconds}

    def run(self, request: Dict) -> Dict:
        """Evaluate a row, with the keys as bytes or as the object that was made of them once."""
        keys = {"bytes": self.serialised_keys, "object": self.keys}[request["keys"]]
        row = self.rows[request["row"]]
        start = time.perf_counter()
        outputs = self.server.run(row, keys)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "outputs": self.write("theirs", as_tuple(outputs))}

    def decrypt(self, request: Dict) -> Dict:
        """Decrypt outputs, whoever computed them."""
        outputs = [Path(path).read_bytes() for path in request["outputs"]]
        return {"integers": flat_integers(self.client.deserialize_decrypt(*outputs))}


def main() -> None:
    """Answer requests until there are no more."""
    # Whatever else prints, such as the training of networks, must not come between answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    peer = Peer()
    known = ("versions", "build", "open", "deserialise", "run", "decrypt")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] not in known:
                raise ValueError(f"unknown request {request['do']}")
            answer = getattr(peer, request["do"])(request)
        except Exception as error:  # pylint: disable=broad-exception-caught
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=channel, flush=True)
    # Concrete's runtime has an exit handler of its own, which need not run.
    os._exit(0)


if __name__ == "__main__":
    main()
