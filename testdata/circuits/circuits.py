#!/usr/bin/env python3
"""Make circuits of the real Concrete in both forms, compiled and not.

Each is there for something that the models of `../concrete` do not have. A folder holds `server.zip`
with machine code, `server.mlir.zip` of the same compilation, and `expected.json`: integers that go
in, and those that come out without encryption.

    pip install concrete-ml==1.9.0        # Python 3.11
    python circuits.py [NAME ..]
"""

import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "concrete"))

# pylint: disable=wrong-import-position
import numpy
import torch
from generate import refuse_machine_paths, rewrite_zip, write_json
from torch import nn

from concrete import fhe
from concrete.ml.pandas import _development
from concrete.ml.torch.compile import compile_torch_model

#: Concrete ML's own settings where they matter for the circuit.
SETTINGS = dict(
    p_error=2.0**-40,
    compress_evaluation_keys=True,
    compress_input_ciphertexts=True,
    parameter_selection_strategy="multi",
    single_precision=False,
)

TABLE = numpy.array([3, -1, 2, 0, -2, 1, 3, -3, 0, 2, 1, -1, -2, 3, 0, 1])


def look_up(value: Any) -> Any:
    """A table of sixteen small integers."""
    return fhe.univariate(lambda x: TABLE[numpy.asarray(x).astype(numpy.int64) % 16])(value)


class Pooled(nn.Module):
    """A padded convolution of two groups, and the largest of each window."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.output = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return two scores."""
        x = torch.relu(self.first(x))
        x = nn.functional.max_pool2d(x, 2)
        return self.output(torch.flatten(x, 1))


class Rounded(nn.Module):
    """A layer whose sums are rounded approximately."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.output = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return two scores."""
        return self.output(torch.relu(self.hidden(x)))


def of_module(module: Callable, shape: Tuple[int, ...], **arguments: Any) -> Tuple[Any, List, List]:
    """Compile a torch module, and quantise two rows."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    samples = torch.rand(20, *shape)
    quantised = compile_torch_model(module(), samples, **arguments)
    rows = [quantised.quantize_input(samples[i : i + 1].numpy()) for i in range(2)]
    outputs = [quantised.quantized_forward(row) for row in rows]
    return quantised.fhe_circuit, [[row] for row in rows], [[output] for output in outputs]


def of_function(function: Callable, inputs: List[Tuple], **settings: Any) -> Tuple[Any, List, List]:
    """Compile a function of encrypted integers."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    compiler = fhe.Compiler(function, {name: "encrypted" for name in names})
    circuit = compiler.compile(inputs, fhe.Configuration(**{**SETTINGS, **settings}))
    outputs = [circuit.graph(*values) for values in inputs[:8]]
    return circuit, inputs[:8], [o if isinstance(o, tuple) else (o,) for o in outputs]


def data_frames() -> Tuple[Any, List, List]:
    """Compile the join of `concrete.ml.pandas` as that package does, and as it ships it."""
    join = _development.PANDAS_OPS_TO_CIRCUIT_CONFIG["left_right_join"]
    circuit = join["to_compile"].compile(
        join["get_inputset"](),
        composable=True,
        configuration=fhe.Configuration(compress_evaluation_keys=True),
    )
    with zipfile.ZipFile(_development.SERVER_PATH) as shipped:
        assert shipped.read("circuit.mlir").decode() == str(circuit.mlir), "another circuit"
    # A value so far, a value to add where keys are equal, and both keys.
    inputs = [(0, 9, 4, 4), (0, 9, 4, 5), (7, 0, 1, 1), (7, 15, 15, 1), (0, 15, 15, 15)]
    return circuit, inputs, [(circuit.graph(*values),) for values in inputs]


def pairs(low: int, high: int, shapes: List[Tuple[int, ...]]) -> List[Tuple]:
    """Integers of some arguments, the smallest and the largest among them."""
    generator = numpy.random.default_rng(0)
    ends = [tuple(numpy.full(shape, end) for shape in shapes) for end in (low, high)]
    others = [tuple(generator.integers(low, high + 1, shape) for shape in shapes) for _ in range(40)]
    return others + ends


def products(x, y):
    """Encrypted times encrypted, element by element and as matrices."""
    return (x * y) + (x @ y)


def two_widths(x):
    """Tables of four bits and of fewer, whose results are added."""
    return look_up(x) + look_up(look_up(x) + 3)


def two_keyswitches(x):
    """Tables of two widths under one key set, whose keyswitch keys lead from the same to the same."""
    y = look_up(x)
    return y * y


CASES: Dict[str, Callable[[], Tuple[Any, List, List]]] = {
    "padded_max_pool": lambda: of_module(Pooled, (2, 4, 4), n_bits=2, rounding_threshold_bits=3),
    "approximate_rounding": lambda: of_module(
        Rounded, (4,), n_bits=3, rounding_threshold_bits={"n_bits": 4, "method": "approximate"}
    ),
    "products": lambda: of_function(products, pairs(-2, 3, [(2, 2), (2, 2)])),
    "global_p_error": lambda: of_function(
        two_widths, pairs(0, 15, [(3,)]), p_error=None, global_p_error=2.0**-20
    ),
    "mono": lambda: of_function(two_widths, pairs(0, 15, [(3,)]), parameter_selection_strategy="mono"),
    "two_keyswitches": lambda: of_function(two_keyswitches, pairs(0, 7, [(2,)])),
    "data_frames": data_frames,
    "composable": lambda: of_function(two_widths, pairs(0, 7, [(2,)]), composable=True),
}


def flat(values: List) -> List[List[int]]:
    """Integers of each argument in C order."""
    return [[int(v) for v in numpy.asarray(value).flatten()] for value in values]


def generate(name: str, folder: Path) -> None:
    """Compile and save a circuit in both forms, with what is expected of it."""
    circuit, inputs, outputs = CASES[name]()
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        for file, via_mlir in (("server.zip", False), ("server.mlir.zip", True)):
            circuit.server.save(Path(saved) / file, via_mlir=via_mlir)
            rewrite_zip(Path(saved) / file, folder / file)
    expected = {"inputs": [flat(row) for row in inputs], "outputs": [flat(row) for row in outputs]}
    write_json(folder / "expected.json", expected)
    refuse_machine_paths(folder)


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        generate(case, HERE / case)
        print(case, flush=True)
    sys.stdout.flush()
    # Concrete's runtime has an exit handler of its own.
    os._exit(0)
