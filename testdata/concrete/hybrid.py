#!/usr/bin/env python3
"""Make the reference data of a hybrid model, some of whose layers are evaluated under encryption.

Concrete ML saves such a layer as a pair of zips of its own. `hybrid_layer` is the second of three
layers, with the files and fields of the other cases. Its rows are what the first layer gives.

    pip install concrete-ml==1.9.0        # Python 3.11
    python hybrid.py
"""

import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import numpy
import torch
from cases import TorchCase
from generate import (
    check_in_fhe,
    circuit_output_shape,
    expected_values,
    refuse_machine_paths,
    rewrite_zip,
    write_json,
    write_rows,
)
from torch import nn

from concrete.ml.quantization import QuantizedModule
from concrete.ml.torch.hybrid_model import HybridFHEModel

NAME = "hybrid_layer"
#: Which layer is encrypted, and how wide its input is.
LAYER, WIDTH = "1", 6
#: As `compile_model` takes them.
ARGUMENTS = dict(n_bits=4, rounding_threshold_bits=5)
ROWS = 3


class Encrypted(nn.Module):
    """A layer and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the next layer takes."""
        return torch.relu(self.linear(x))


def main() -> None:
    """Save the hybrid model in both forms, and what its layer computes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(3, WIDTH), Encrypted(), nn.Linear(4, 2))
    samples = torch.rand(60, 3) * 2 - 1
    with torch.no_grad():
        rows = model[0](samples[:ROWS]).numpy().astype(numpy.float64)
        hybrid = HybridFHEModel(model, LAYER)
        hybrid.compile_model(samples, **ARGUMENTS)
    layer = hybrid.private_q_modules[LAYER]
    case = TorchCase(
        NAME, QuantizedModule, ARGUMENTS, "torch.rand(60, 3) * 2 - 1, after the first layer", module=Encrypted, shape=(WIDTH,)
    )
    folder = Path(__file__).resolve().parent / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, via_mlir in (("server.zip", False), ("server.mlir.zip", True)):
        with tempfile.TemporaryDirectory() as saved:
            # As `save_and_clear_private_info` does, which also takes the layer away.
            (Path(saved) / LAYER).mkdir()
            hybrid._save_fhe_circuit(Path(saved), via_mlir=via_mlir)
            (server,) = Path(saved).rglob("server.zip")
            rewrite_zip(server, folder / name)
            rewrite_zip(server.with_name("client.zip"), folder / "client.zip")
    expected = expected_values(
        case, layer, ARGUMENTS["n_bits"], rows, circuit_output_shape(folder / "client.zip")
    )
    write_rows(folder / "rows.csv", [f"f{i}" for i in range(WIDTH)], rows)
    write_json(folder / "expected.json", expected)
    check_in_fhe(case, folder, rows, expected)
    refuse_machine_paths(folder)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # pylint: disable=broad-exception-caught
        traceback.print_exc()
        sys.stdout.flush()
        # Concrete's runtime has an exit handler of its own.
        os._exit(1)
