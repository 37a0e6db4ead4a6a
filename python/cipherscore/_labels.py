"""Labels of classes: which are not in a ``client.zip``, and lie beside it in ``cipherscore.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .errors import ArtifactError

FILE = "cipherscore.json"
FORMAT_VERSION = 1
# A file of labels of some thousand classes is far smaller.
MAX_BYTES = 1 << 20


def write(folder: Path, model: Any) -> None:
    """Write the labels of a fitted classifier; of other models that there are none."""
    labels = getattr(model, "classes_", None)
    written: Optional[dict[str, Any]] = None
    if labels is not None:
        array = np.asarray(labels)
        if array.ndim == 1:
            kind = "str" if array.dtype.kind in "OUS" else array.dtype.name
            items = [str(label) for label in array] if kind == "str" else array.tolist()
            written = {"dtype": kind, "labels": items}
    content = {
        "format_version": FORMAT_VERSION,
        "model_class": type(model).__name__,
        "classes": written,
    }
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Optional[npt.NDArray[Any]]:
    """Labels in the order of the probabilities, or none where nothing says them."""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which labels never are")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ArtifactError(f"{path} is of another version of cipherscore; upgrade it")
        classes = content["classes"]
        return None if classes is None else np.array(classes["labels"], dtype=classes["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}") from None


def of_probabilities(
    labels: Optional[npt.NDArray[Any]], probabilities: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    """The most probable class of each row: its label, or its position where no labels are known."""
    best: npt.NDArray[Any] = np.argmax(probabilities, axis=1)
    if labels is None:
        return best
    if len(labels) != probabilities.shape[1]:
        raise ArtifactError(
            f"{FILE} has {len(labels)} labels, and the model {probabilities.shape[1]} classes: it "
            "is of another model"
        )
    chosen: npt.NDArray[Any] = labels[best]
    return chosen
