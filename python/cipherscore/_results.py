"""Scores as the caller's rows came: arrays for arrays, frames for frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _labels
from ._rows import is_frame
from .errors import RowsError


@dataclass(frozen=True)
class Shape:
    """What rows were in."""

    #: Of a DataFrame.
    index: Optional[Any]

    @classmethod
    def of(cls, values: Any) -> Shape:
        """Of these rows."""
        return cls(values.index if is_frame(values) else None)


@dataclass(frozen=True)
class Results:
    """What a method returns."""

    method: str
    classes: Optional[npt.NDArray[Any]]
    is_classifier: bool
    shape: Shape

    def of_scores(self, scores: npt.NDArray[np.float64]) -> Any:
        """Of scores of shape (rows, scores)."""
        if self.method == "predict_proba":
            if not self.is_classifier:
                raise RowsError("this model has no probabilities: it is no classifier; use predict")
            return self._frame(scores)
        if self.is_classifier:
            return self._series(_labels.of_probabilities(self.classes, scores))
        if scores.shape[1] == 1:
            return self._series(scores[:, 0])
        return self._frame(scores)

    def _frame(self, scores: npt.NDArray[np.float64]) -> Any:
        if self.shape.index is None:
            return scores
        import pandas

        known = self.is_classifier and self.classes is not None
        columns = self.classes if known else range(scores.shape[1])
        return pandas.DataFrame(scores, index=self.shape.index, columns=columns)

    def _series(self, values: npt.NDArray[Any]) -> Any:
        if self.shape.index is None:
            return values
        import pandas

        return pandas.Series(values, index=self.shape.index)
