"""What estimators predict with: a compiled model with keys of its own, here or behind a queue."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .deployment import FHEModelClient, FHEModelDev, FHEModelServer
from .fleet import Fleet


class Scorer:
    """A compiled model, its keys, and the way from rows to scores.

    A copy or a pickle of it holds no keys: it reads those of ``key_dir`` again, or makes its own.
    """

    def __init__(self, files: dict[str, bytes], keys: Optional[Path]) -> None:
        self._files = files
        self._keys = keys
        self._lock = threading.Lock()
        self._client: Optional[FHEModelClient] = None
        self._server: Optional[FHEModelServer] = None

    @classmethod
    def compile(cls, model: Any, key_dir: Any, options: Mapping[str, Any]) -> Scorer:
        """Compile a fitted model with the options of ``FHEModelDev.save``, and make keys."""
        with TemporaryDirectory(prefix="cipherscore-") as name:
            folder = Path(name)
            FHEModelDev(folder, model).save(**options)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            model_id = FHEModelClient(folder).model_id
        # Each model has keys of its own, so that a fit does not take those of another away.
        scorer = cls(files, None if key_dir is None else Path(key_dir) / model_id)
        scorer.client.generate_private_and_evaluation_keys()
        return scorer

    @property
    def client(self) -> FHEModelClient:
        """The data owner's side, with the keys."""
        with self._lock:
            self._open()
            assert self._client is not None
            return self._client

    def _open(self) -> None:
        if self._client is not None:
            return
        if self._keys is not None:
            self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(prefix="cipherscore-")
        self.save(Path(self._folder.name))
        self._client = FHEModelClient(self._folder.name, self._keys)

    def save(self, folder: Path) -> None:
        """Write what ``FHEModelDev.save`` wrote."""
        for name, content in self._files.items():
            (folder / name).write_bytes(content)

    @property
    def report(self) -> dict[str, Any]:
        """What the compiler says of the model."""
        found: dict[str, Any] = json.loads(self._files["report.json"])
        return found

    def serve(self, models_dir: Path) -> None:
        """Put ``server.zip`` where workers find it: whole, or not at all."""
        folder = models_dir / self.client.model_id
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"server.{os.getpid()}.part"
        part.write_bytes(self._files["server.zip"])
        part.replace(folder / "server.zip")

    def locally(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Encrypt, evaluate and decrypt here, as many rows at a time as a job would have."""
        client = self.client
        with self._lock:
            if self._server is None:
                self._server = FHEModelServer(self._folder.name)
            server = self._server
        keys = client.get_serialized_evaluation_keys()
        count = client.client.rows_per_job
        parts = []
        for start in range(0, len(rows), count):
            encrypted = client.quantize_encrypt_serialize(rows[start : start + count])
            result = server.run(encrypted, keys)
            assert isinstance(result, bytes)  # one output for one input
            parts.append(client.deserialize_decrypt_dequantize(result))
        return np.concatenate(parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "keys": self._keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Scorer.__init__(self, state["files"], state["keys"])


_FLEETS: dict[tuple[Any, ...], Fleet] = {}
_FLEETS_LOCK = threading.Lock()


def environment_fleet() -> Fleet:
    """The fleet that the environment names, one for each process."""
    names = ("CIPHERSCORE_BROKER_URL", "CIPHERSCORE_REDIS_URL")
    where = (os.getpid(), *(os.environ.get(name) for name in names))
    with _FLEETS_LOCK:
        if where not in _FLEETS:
            _FLEETS[where] = Fleet()
        return _FLEETS[where]
