"""Concrete ML's own ``FHEModelClient``, whose keys and ciphertexts go through as they are."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from . import _labels, _native
from ._pair import read_server
from ._rows import as_rows, is_frame, require_shape
from .errors import ArtifactError, RowsError

if TYPE_CHECKING:
    from .fleet import Job

_METHODS = (
    "get_serialized_evaluation_keys",
    "quantize_encrypt_serialize",
    "deserialize_decrypt_dequantize",
)

Done = Callable[[Any, Optional[BaseException]], None]


class RemoteClient:
    """What a fleet knows of a client: its model and its evaluation key, but no reference to it."""

    def __init__(self, client: Any) -> None:
        if not all(hasattr(client, method) for method in _METHODS):
            raise TypeError(
                f"a client is cipherscore.deployment.FHEModelClient or Concrete ML's, not "
                f"{type(client).__qualname__}"
            )
        self._client = weakref.ref(client)
        folder = Path(client.path_dir)
        server = folder / "server.zip"
        if not server.exists():
            raise ArtifactError(
                f"which model? There is no server.zip in {folder}, of which jobs name the digest. Put "
                "it there, or use cipherscore.deployment.FHEModelClient(path_dir, key_dir, model_id=ID)"
            )
        opened = _native.Client((folder / "client.zip").read_bytes())
        self.model_id = _native.server_model_id(read_server(opened, folder))
        self.classes = _labels.read(folder)
        self.is_classifier = opened.score_kind == "probabilities"
        self.rows_per_job = opened.rows_per_job
        self._row_shape = opened.row_shape
        self._needs_key = opened.needs_key
        # Its objects are made for one thread.
        self._lock = threading.Lock()

    def rows(self, x: Any) -> Any:
        """Return rows as an array whose first dimension they are."""
        rows = as_rows(x, shape=self._row_shape) if is_frame(x) else np.asarray(x)
        if rows.ndim < 2 or len(rows) == 0:
            raise RowsError("rows have two dimensions, (rows, features), and there is at least one")
        require_shape(rows.shape, self._row_shape)
        return rows.reshape(len(rows), *self._row_shape)

    def score(
        self,
        rows: Any,
        job: Job,
        executor: Executor,
        evaluate: Callable[[Optional[_native.EvaluationKey], list[bytes], Done], None],
        finished: Done,
        rows_per_job: int,
    ) -> None:
        """Encrypt rows job by job, and decrypt what comes back; in the executor's thread."""
        try:
            # The client may have got other keys since the last call.
            key = self._evaluation_key()
        except BaseException as error:
            finished(None, error)
            return
        starts = range(0, len(rows), rows_per_job)
        parts: list[Any] = [None] * len(starts)
        left = [len(starts)]

        def decrypted(number: int, values: Sequence[bytes]) -> None:
            try:
                parts[number] = self._decrypt(values)
                left[0] -= 1
                if left[0] == 0:
                    finished(np.vstack(parts), None)
            except BaseException as error:
                finished(None, error)

        def answered(number: int, values: Any, error: Optional[BaseException]) -> None:
            if error is not None:
                finished(None, error)
            elif not job.done():
                executor.submit(decrypted, number, values)

        def encrypt(number: int) -> None:
            if job.done():
                return
            try:
                start = starts[number]
                values = self._encrypt(rows[start : start + rows_per_job], job)
                if job.done():
                    return
                evaluate(key, values, lambda result, error: answered(number, result, error))
                # Behind what waits to be decrypted.
                if number + 1 < len(starts):
                    executor.submit(encrypt, number + 1)
            except BaseException as error:
                finished(None, error)

        encrypt(0)

    def _open(self) -> Any:
        client = self._client()
        if client is None:
            raise RowsError("the client is gone: keep FHEModelClient until its rows have scores")
        return client

    def _evaluation_key(self) -> Optional[_native.EvaluationKey]:
        """The key as the client has it now. Makes keys if there are none."""
        with self._lock:
            client = self._open()
            if not self._needs_key:
                # Without them it cannot encrypt.
                client.generate_private_and_evaluation_keys(force=False)
                return None
            return _native.EvaluationKey(bytes(client.get_serialized_evaluation_keys()))

    def _encrypt(self, rows: Any, job: Job) -> list[bytes]:
        """A value for each row; fewer when nobody waits for them any more."""
        with self._lock:
            client, values = self._open(), []
            for row in range(len(rows)):
                if job.done():
                    break
                value = client.quantize_encrypt_serialize(rows[row : row + 1])
                if not isinstance(value, bytes):
                    raise RowsError("a model of one input is needed, in Concrete's ciphertext format")
                values.append(value)
            return values

    def _decrypt(self, values: Sequence[bytes]) -> Any:
        with self._lock:
            client = self._open()
            scores = [client.deserialize_decrypt_dequantize(value) for value in values]
        return np.vstack([np.asarray(score, dtype=np.float64).reshape(1, -1) for score in scores])
