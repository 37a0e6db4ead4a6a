"""Concrete ML's own ``FHEModelClient``, whose keys and ciphertexts go through as they are."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from . import _labels, _native
from ._job import Job
from ._pair import read_server
from ._rows import as_rows, is_frame, require_shape
from .errors import ArtifactError, KeysError, RowsError

_METHODS = (
    "get_serialized_evaluation_keys",
    "quantize_encrypt_serialize",
    "deserialize_decrypt_dequantize",
)

# Concrete's client, its keys, and SHA-256 of the serialised evaluation key; none where there is none.
_Held = tuple[Any, Any, Optional[bytes]]
Done = Callable[[Any, Optional[BaseException]], None]


def _inner(client: Any) -> Any:
    """Concrete's client, which Concrete ML's has in it."""
    return getattr(client, "client", None)


def _key_objects(client: Any) -> tuple[Any, Any]:
    """What ``load`` and ``generate_private_and_evaluation_keys`` make anew: Concrete's client, and its
    keys where they can be seen."""
    inner = _inner(client)
    return inner, getattr(getattr(inner, "keys", None), "_keyset", None)


def _digests(folder: Path) -> tuple[bytes, ...]:
    """SHA-256 of the files that say which model it is, and what its classes are called."""
    paths = (folder / name for name in ("client.zip", "server.zip", _labels.FILE))
    return tuple(hashlib.sha256(path.read_bytes()).digest() if path.exists() else b"" for path in paths)


def require_client(client: Any) -> None:
    """Refuse what does not do what Concrete ML's client does."""
    if not all(hasattr(client, method) for method in _METHODS):
        raise TypeError(
            f"a client is cipherscore.deployment.FHEModelClient or Concrete ML's, not "
            f"{type(client).__qualname__}"
        )


class RemoteClient:
    """What a fleet knows of a client: its model and its evaluation key, but no reference to it."""

    def __init__(self, client: Any) -> None:
        self._client = weakref.ref(client)
        folder = Path(client.path_dir)
        server = folder / "server.zip"
        if not server.exists():
            raise ArtifactError(
                f"which model? There is no server.zip in {folder}, of which jobs name the digest. Put "
                "it there, or use cipherscore.deployment.FHEModelClient(path_dir, key_dir, model_id=ID)"
            )
        # Before they are read: files that change in between are read again by the next call.
        self._digests = _digests(folder)
        self._opened = _inner(client)
        opened = _native.Client((folder / "client.zip").read_bytes())
        self.model_id = _native.server_model_id(read_server(opened, folder))
        self.classes = _labels.read(folder)
        self.is_classifier = opened.score_kind == "probabilities"
        self.rows_per_job = opened.rows_per_job
        self._row_shape = opened.row_shape
        self._needs_key = opened.needs_key
        # Its objects are made for one thread.
        self._lock = threading.Lock()

    def is_current(self, client: Any) -> bool:
        """Whether the client's folder still holds the model of this.

        Raises:
            ArtifactError: It holds another one, which the client has not opened: it would encrypt
                for the model of before.
        """
        folder = Path(client.path_dir)
        if _digests(folder) == self._digests:
            return True
        if _inner(client) is self._opened:
            raise ArtifactError(
                f"the model in {folder} was saved again since the client opened it: call "
                "client.load(), or make a new FHEModelClient"
            )
        return False

    def rows(self, x: Any) -> Any:
        """Return rows as an array whose first dimension they are."""
        # What is no DataFrame keeps the precision that Concrete ML quantises it in.
        frame = is_frame(x)
        rows = as_rows(x, shape=self._row_shape, any_precision=False) if frame else np.asarray(x)
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
            key, held = self._keys()
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
                    self._require_same(held)
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

    def _keys(self) -> tuple[Optional[_native.EvaluationKey], _Held]:
        """The evaluation key as the client has it now, and by what the keys are known again. Makes
        keys if there are none."""
        with self._lock:
            client = self._open()
            if not self._needs_key:
                # Without them it cannot encrypt.
                client.generate_private_and_evaluation_keys(force=False)
                inner, keyset = _key_objects(client)
                return None, (inner, keyset, None)
            serialised = bytes(client.get_serialized_evaluation_keys())
            inner, keyset = _key_objects(client)
        held = inner, keyset, hashlib.sha256(serialised).digest()
        return _native.EvaluationKey(serialised), held

    def _require_same(self, held: _Held) -> None:
        """Refuse scores of a call during which the client got other keys.

        Raises:
            KeysError: It did: some rows or results were of one secret key, and some of another.
        """
        inner, keyset, digest = held
        with self._lock:
            client = self._open()
            found = _key_objects(client)
            same = found[0] is inner and found[1] is keyset
            if same and keyset is None and digest is not None:
                serialised = bytes(client.get_serialized_evaluation_keys())
                same = hashlib.sha256(serialised).digest() == digest
        if not same:
            raise KeysError(
                "the client was loaded or got new keys while its rows were under way, and their "
                "scores may be noise: score these rows again, and change keys between calls only"
            )

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
