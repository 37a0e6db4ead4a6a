"""Concrete ML's deployment classes, by their names, methods and arguments.

``FHEModelDev`` saves a fitted model, ``FHEModelClient`` makes keys, encrypts and decrypts,
``FHEModelServer`` evaluates. What differs from Concrete ML:

* ``model`` is a fitted model of scikit-learn, XGBoost or LightGBM itself, and there is no
  ``compile``; a compiled model of Concrete ML is taken too, and saved so that workers can open it;
* ``quantize_encrypt_serialize`` takes any number of rows, which travel as one ``bytes``.

Folders that Concrete ML saved open in the client and in the server here. One row of such a model is
serialised as Concrete does, so that either side may be Concrete ML's.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _labels, _native
from ._pair import read_server
from ._rows import Rows, as_rows
from .compiler import Bins, Ranges, WantedForm, compile_model
from .errors import ArtifactError, CompileError, KeysError, RowsError

__all__ = ["DeploymentMode", "FHEModelClient", "FHEModelDev", "FHEModelServer"]

_PathLike = Union[str, "os.PathLike[str]"]
Form = Literal["auto", "rows", "bulk"]

# Becomes the recorder of a raw server.zip. It loads the extension module from its file and nothing
# else: no package, no numpy, no thread.
_RECORDER = """
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
path = sys.argv[1]
spec = spec_from_file_location("_native", path, loader=ExtensionFileLoader("_native", path))
module = module_from_spec(spec)
spec.loader.exec_module(module)
module.record_and_exit()
"""


class DeploymentMode(Enum):
    """What is saved of a model of Concrete ML."""

    INFERENCE = "inference"
    TRAINING = "training"


def _is_concrete(model: Any) -> bool:
    return any(base.__module__.startswith("concrete.ml") for base in type(model).__mro__)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"there is no {path.name} in {path.parent}; {what}. FHEModelDev(path_dir, model).save() "
            "writes both client.zip and server.zip"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None


class FHEModelDev:
    """Saves a model for clients and servers."""

    def __init__(self, path_dir: _PathLike, model: Any = None) -> None:
        """Make the folder.

        Args:
            path_dir: Where the artifact goes.
            model: A fitted model of scikit-learn, XGBoost or LightGBM, or a compiled model of
                Concrete ML.
        """
        self.path_dir = path_dir
        self.model = model
        Path(path_dir).mkdir(parents=True, exist_ok=True)

    def save(
        self,
        mode: Union[DeploymentMode, str] = DeploymentMode.INFERENCE,
        via_mlir: bool = True,
        *,
        calibration: Any = None,
        ranges: Optional[Ranges] = None,
        bins: Optional[Bins] = None,
        max_bins: Optional[int] = None,
        max_error: float = 1e-3,
        hide: bool = True,
        p_fail: float = 2.0**-128,
        form: WantedForm = "both",
    ) -> None:
        """Write ``client.zip``, ``server.zip`` and what belongs to them into the empty folder.

        Args:
            mode: Of a model of Concrete ML: ``"inference"``, or ``"training"`` for its encrypted
                training.
            via_mlir: Of a model of Concrete ML: whether its circuit is saved before compilation, which
                opens on any processor, or as machine code.
            calibration: Rows like those to come, such as the training rows. Linear models need them,
                or ``ranges``; with them thresholds of trees are hidden among decoys.
            ranges: Smallest and largest value of a linear model's features, by name.
            bins: ``"padded"``, ``"used"`` or ``"full"``: see :func:`cipherscore.compiler.compile_model`.
            max_bins: Merge the thresholds of each feature to at most so many.
            max_error: Largest error of rounding, relative to what a raw output can be.
            hide: Whether replies hide trees from data owners.
            p_fail: Probability that any score of a batch is wrong, at most.
            form: Of trees: ``"bulk"``, for thousands of rows at a time, ``"rows"``, for single rows, or
                ``"both"``.

        Raises:
            CompileError: The model cannot be compiled; says what could be.
        """
        try:
            mode = DeploymentMode(mode.lower() if isinstance(mode, str) else mode)
        except ValueError:
            raise ValueError("mode is either 'inference' or 'training'") from None
        folder = Path(self.path_dir)
        if any(folder.iterdir()):
            raise FileExistsError(
                f"path_dir: {folder} is not empty. Please delete it before saving a new model."
            )
        if _is_concrete(self.model):
            self._save_concrete(mode, via_mlir)
        else:
            if mode is not DeploymentMode.INFERENCE:
                raise CompileError(
                    "mode='training' is for models of Concrete ML; "
                    f"{type(self.model).__name__} is trained in the clear"
                )
            compiled = compile_model(
                self.model,
                calibration=calibration,
                ranges=ranges,
                bins=bins,
                max_bins=max_bins,
                max_error=max_error,
                hide=hide,
                p_fail=p_fail,
                form=form,
            )
            (folder / "server.zip").write_bytes(compiled.server_zip)
            (folder / "client.zip").write_bytes(compiled.client_zip)
            (folder / "model.json").write_bytes(compiled.manifest)
            (folder / "report.json").write_bytes(compiled.report)
        _labels.write(folder, self.model)

    def _save_concrete(self, mode: DeploymentMode, via_mlir: bool) -> None:
        """Concrete ML saves its own models."""
        from concrete.ml.deployment import FHEModelDev as ConcreteDev

        ConcreteDev(str(self.path_dir), self.model).save(mode=mode.value, via_mlir=via_mlir)


class FHEModelClient:
    """Makes keys, encrypts rows and decrypts results."""

    def __init__(
        self,
        path_dir: _PathLike,
        key_dir: Optional[_PathLike] = None,
        *,
        passphrase: Optional[str] = None,
        model_id: Optional[str] = None,
    ) -> None:
        """Open ``client.zip``.

        Args:
            path_dir: The folder with ``client.zip``.
            key_dir: Where keys are, or will be, in files that only their owner can read; they are
                cipherscore's, and other than Concrete ML's. It may be ``path_dir`` itself. None keeps
                keys in memory.
            passphrase: Encrypts the secret key in ``key_dir``.
            model_id: Which model a :class:`cipherscore.Fleet` evaluates, where neither ``client.zip``
                nor a ``server.zip`` beside it says so.
        """
        self.path_dir = path_dir
        self.key_dir = key_dir
        self._passphrase = passphrase
        self._given_model_id = model_id
        if not Path(path_dir).exists():
            raise ArtifactError(f"{path_dir} does not exist. Please specify a valid path.")
        self.load()

    def load(self) -> None:
        """Open ``client.zip`` again. Keys are read from ``key_dir`` when they are needed."""
        folder = Path(self.path_dir)
        # What server.zip says; it may be of another model now.
        self._read_model_id: Optional[str] = None
        keys = None if self.key_dir is None else Path(self.key_dir)
        if keys is not None and keys.is_dir():
            _refuse_other_keys(keys)
        zipped = _read(folder / "client.zip", "a client needs it")
        self.client = _native.Client(
            zipped, None if keys is None else os.fspath(keys), self._passphrase
        )
        #: Labels of the classes in the order of the probabilities, where they are known.
        self.classes_: Optional[npt.NDArray[Any]] = _labels.read(folder)
        if (folder / "server.zip").exists():
            read_server(self.client, folder)

    @property
    def model_id(self) -> str:
        """The model that jobs name: the digest of the original ``server.zip``.

        Raises:
            ArtifactError: Nothing says it.
        """
        said = self.client.model_id
        if said is not None:
            return said
        if self._given_model_id is not None:
            return self._given_model_id
        if self._read_model_id is None:
            path = Path(self.path_dir) / "server.zip"
            if not path.exists():
                raise ArtifactError(
                    f"which model? There is no server.zip in {self.path_dir}, and client.zip does "
                    "not say it; give FHEModelClient(.., model_id=ID), as `cipherscore inspect "
                    "server.zip` says it to whoever has it"
                )
            self._read_model_id = _native.server_model_id(read_server(self.client, path.parent))
        return self._read_model_id

    @property
    def is_classifier(self) -> bool:
        """Whether scores are probabilities of classes."""
        return self.client.score_kind == "probabilities"

    def generate_private_and_evaluation_keys(self, force: bool = False) -> None:
        """Make keys, unless there are some.

        Args:
            force: Replace those that are there. What was encrypted under them cannot be decrypted
                any more.
        """
        self.client.generate_keys(force)

    def get_serialized_evaluation_keys(self, include_tfhers_key: bool = False) -> bytes:
        """Return what a server needs to evaluate, and make keys if there are none.

        Args:
            include_tfhers_key: Not supported: ciphertexts of TFHE-rs are not.

        Returns:
            The evaluation keys; no bytes for a model that needs none, such as a linear one.
        """
        if include_tfhers_key:
            raise KeysError("there are no keys of TFHE-rs: ciphertext_format TFHE_RS is not supported")
        return self.client.evaluation_key() or b""

    def get_tfhers_secret_key(self) -> Optional[bytes]:
        """Return None: there is no key of TFHE-rs."""
        return None

    def rows(self, x: Any) -> Rows:
        """Return rows as the model takes them.

        Args:
            x: An array or a DataFrame of shape (rows, features), or of the shape that the model was
                trained on. Columns of a DataFrame are found by their names, where the model has
                names of features. Rows of Concrete ML's models are quantised in their own precision,
                as Concrete ML does: 32-bit floats in 32 bits.

        Raises:
            RowsError: Rows of another shape, or of a precision that is neither single nor double.
        """
        named = self.client.features_are_named
        return as_rows(
            x,
            self.client.feature_names if named else None,
            self.client.row_shape,
            # Compiled models say which one they are, and take numbers for what they are.
            any_precision=self.client.model_id is not None,
            categories=self.client.categories,
        )

    def quantize_encrypt_serialize(self, *x: Any, form: Form = "auto") -> bytes:
        """Encrypt rows.

        Args:
            x: One array or DataFrame of shape (rows, features).
            form: Of a compiled model: ``"rows"``, one row at a time; ``"bulk"``, thousands at a time; or
                ``"auto"``, the one that costs less for the number of rows. What was encrypted in the form
                ``"rows"`` is decrypted by this object, or by one with the same ``key_dir``.

        Returns:
            One row of a model of Concrete ML as Concrete serialises it, which Concrete ML's own
            server takes. Several rows of it, and rows of compiled models: one file of rows, which
            ``FHEModelServer.run`` here and ``cipherscore evaluate`` take.
        """
        if len(x) != 1 or x[0] is None:
            raise RowsError(
                f"{len(x)} inputs, where a model has one, of shape (rows, features). Encrypted "
                "training is done with Concrete ML's client, or with `cipherscore encrypt`"
            )
        return self.client.encrypt(self.rows(x[0]), form)

    def deserialize_decrypt(self, *results: Optional[bytes]) -> npt.NDArray[np.int64]:
        """Decrypt what the server made of rows.

        Returns:
            Integers of shape (rows, outputs), before they are scores.
        """
        if len(results) != 1 or results[0] is None:
            raise RowsError("the result of a model is one `bytes`, as FHEModelServer.run returns it")
        return self.client.decrypt(results[0])

    def deserialize_decrypt_dequantize(self, *results: Optional[bytes]) -> npt.NDArray[np.float64]:
        """Decrypt what the server made of rows, into scores.

        Returns:
            ``predict_proba`` of a classifier, shape (rows, classes); ``predict`` of a regressor,
            shape (rows,), or (rows, targets) where it has several.
        """
        scores = self.client.scores(self.deserialize_decrypt(*results))
        single = not self.is_classifier and scores.shape[1] == 1
        return scores[:, 0] if single else scores


def _refuse_other_keys(folder: Path) -> None:
    """Keys are not written among somebody else's files; beside the model's own they may be."""
    names = {path.name for path in folder.iterdir()}
    if names and not names & {"client.key", "keys.json", "client.zip"}:
        raise KeysError(
            f"{folder} holds other files, and no keys of cipherscore: give key_dir an empty or a new "
            "folder. Keys that Concrete ML made are not read: their layout is another one"
        )


class FHEModelServer:
    """Evaluates a model on encrypted rows."""

    def __init__(self, path_dir: _PathLike) -> None:
        """Open ``server.zip``.

        Args:
            path_dir: The folder with ``server.zip``.
        """
        self.path_dir = path_dir
        self.load()

    def load(self) -> None:
        """Open ``server.zip`` again.

        What Concrete saved holds machine code, which is turned into data by a locked child process;
        that takes x86-64 Linux. ``cipherscore import`` does so once and for all.
        """
        zipped = _read(Path(self.path_dir) / "server.zip", "a server needs it")
        recorder = None
        if sys.executable and _native.__file__:
            recorder = [sys.executable, "-I", "-S", "-c", _RECORDER, _native.__file__]
        self.server = _native.Server(zipped, recorder)

    @property
    def model_id(self) -> str:
        """The digest of the original ``server.zip``, by which jobs name the model."""
        return self.server.model_id

    def run(
        self,
        serialized_encrypted_quantized_data: Union[bytes, tuple[bytes, ...]],
        serialized_evaluation_keys: bytes = b"",
    ) -> Union[bytes, tuple[bytes, ...]]:
        """Evaluate the model on encrypted rows.

        Args:
            serialized_encrypted_quantized_data: What a client encrypted: this package's, or Concrete
                ML's. A function of several inputs, such as encrypted training, takes a tuple.
            serialized_evaluation_keys: What the client's ``get_serialized_evaluation_keys`` returned.

        Returns:
            The encrypted results, in the form of the rows; a tuple from a function of several outputs.
        """
        values = serialized_encrypted_quantized_data
        inputs = [values] if isinstance(values, bytes) else list(values)
        if not inputs or not all(isinstance(value, bytes) for value in inputs):
            raise RowsError("encrypted rows are `bytes`, as quantize_encrypt_serialize returns them")
        if isinstance(serialized_evaluation_keys, tuple):
            raise KeysError("evaluation keys are one `bytes`; keys of TFHE-rs are not supported")
        outputs = self.server.run(inputs, serialized_evaluation_keys)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)
