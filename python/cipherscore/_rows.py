"""Rows in, of whatever holds them, as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .errors import RowsError


def is_frame(values: Any) -> bool:
    """Whether rows are a pandas DataFrame, or something that looks like one."""
    return hasattr(values, "columns") and hasattr(values, "to_numpy") and hasattr(values, "index")


def as_rows(values: Any, names: Optional[Sequence[str]] = None) -> npt.NDArray[np.float64]:
    """Return rows as a contiguous array of doubles.

    Args:
        values: An array, a DataFrame or a sparse matrix of shape (rows, features), or (rows, ..)
            of a module whose rows have several dimensions.
        names: Names of the features, where the model has some: columns of a DataFrame are put into
            their order.

    Raises:
        RowsError: Something else, or a DataFrame without a column that the model needs.
    """
    if is_frame(values):
        columns = [str(column) for column in values.columns]
        if names is not None:
            missing = [name for name in names if name not in columns]
            if missing:
                raise RowsError(
                    f"the DataFrame has no column {missing[0]!r}, which the model was trained on"
                    + (f", nor {len(missing) - 1} others" if len(missing) > 1 else "")
                )
            values = values.iloc[:, [columns.index(name) for name in names]]
        values = values.to_numpy()
    elif hasattr(values, "toarray"):
        values = values.toarray()
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RowsError(f"rows are numbers, but: {error}") from None
    if rows.ndim < 2:
        raise RowsError(
            f"rows have two dimensions, (rows, features), not {rows.ndim}; a single row x is "
            "x.reshape(1, -1)"
        )
    if rows.shape[0] == 0:
        raise RowsError("there are no rows")
    # Of a module that takes images, say: its features in row-major order.
    return np.ascontiguousarray(rows.reshape(len(rows), -1))
