"""Rows in, of whatever holds them, as arrays of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from .errors import RowsError


def is_frame(values: Any) -> bool:
    """Whether rows are a pandas DataFrame, or something that looks like one."""
    return hasattr(values, "columns") and hasattr(values, "to_numpy") and hasattr(values, "index")


#: Rows of single or double precision.
Rows = npt.NDArray[Union[np.float32, np.float64]]


def as_rows(
    values: Any,
    names: Optional[Sequence[str]] = None,
    shape: Optional[Sequence[int]] = None,
    *,
    any_precision: bool = True,
    categories: Optional[Sequence[Optional[Category]]] = None,
) -> Rows:
    """Return rows as a contiguous array: of single precision where they are that, else of double.

    Args:
        values: An array, a DataFrame or a sparse matrix of shape (rows, features), or (rows, ..)
            of a module whose rows have several dimensions.
        names: Names of the features, where the model has some: columns of a DataFrame are put into
            their order.
        shape: Dimensions of a row, which may also be flat, in row-major order; any by default.
        categories: Of each feature the texts or numbers that are its categories, if any, and whether
            others are refused. Rows have the names, and not the positions, which are those of the
            model's own list.
        any_precision: Whether floats that are neither of single nor of double precision are turned
            into double ones; Concrete ML would quantise them in their own.

    Raises:
        RowsError: Something else, rows of another shape, or a DataFrame without a column that the
            model needs, or floats of another precision.
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
        if categories is not None and any(categories):
            values = _coded(values, categories)
        values = values.to_numpy()
    elif categories is not None and any(categories):
        raise RowsError(
            "this model has columns of categories with names: give a DataFrame, whose columns have these "
            "names. Positions in another frame's categories are not those of the model"
        )
    elif hasattr(values, "toarray"):
        values = values.toarray()
    try:
        rows = np.asarray(values)
        kinds = _float_kinds(rows)
        if rows.dtype != np.float32:
            rows = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RowsError(f"rows are numbers, but: {error}") from None
    unusual = kinds - {np.dtype(np.float32), np.dtype(np.float64)}
    if unusual and not any_precision:
        raise RowsError(
            f"rows of {unusual.pop()} would be quantised in that precision by Concrete ML, with other "
            "results; say which precision is meant: rows.astype(numpy.float32), or float64"
        )
    if rows.ndim < 2:
        raise RowsError(
            f"rows have two dimensions, (rows, features), not {rows.ndim}; a single row x is "
            "x.reshape(1, -1)"
        )
    if rows.shape[0] == 0:
        raise RowsError("there are no rows")
    if shape is not None:
        require_shape(rows.shape, shape)
    return np.ascontiguousarray(rows.reshape(len(rows), -1))


#: Texts, or numbers, and whether others are refused.
Category = tuple[Optional[list[str]], Optional[list[float]], bool]


def _coded(values: Any, categories: Sequence[Optional[Category]]) -> Any:
    """Return a DataFrame with the positions of categories in place of their names."""
    if len(values.columns) != len(categories):
        raise RowsError(
            f"rows have {len(values.columns)} features, where the model was trained on {len(categories)}"
        )
    values = values.copy()
    for column, category in enumerate(categories):
        if category is None:
            continue
        texts, numbers, refused = category
        known: dict[Any, int] = {name: code for code, name in enumerate(texts or numbers or [])}
        name = values.columns[column]

        def code(value: Any, name: Any = name) -> float:
            if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
                return math.nan
            try:
                found = known.get(str(value) if texts is not None else float(value))
            except (TypeError, ValueError):
                found, is_other = None, True
            else:
                # A number beside texts, or one that may be a code, which is another category.
                is_text = texts is not None
                is_other = not isinstance(value, str) if is_text else 0 <= float(value) < len(known)
            if found is None and (refused or is_other):
                raise RowsError(
                    f"column {name!r}: {value!r} is none of the categories {list(known)[:4]}"
                )
            return math.nan if found is None else float(found)

        codes = [code(value) for value in values.iloc[:, column].astype(object)]
        values.isetitem(column, np.asarray(codes, dtype=np.float64))
    return values


def _float_kinds(rows: npt.NDArray[Any]) -> set[np.dtype[Any]]:
    """Types of the floats in rows, also of those among Python objects."""
    if rows.dtype == object:
        kinds = {np.asarray(value).dtype for value in rows.flat}
    else:
        kinds = {rows.dtype}
    return {kind for kind in kinds if kind.kind == "f"}


def require_shape(found: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse rows whose dimensions are others than the model's, or in another order: values would go
    to the wrong features.

    Raises:
        RowsError: They are, and not flat either.
    """
    if list(found[1:]) in (list(shape), [math.prod(shape)]):
        return
    if len(shape) == len(found) - 1 == 1:
        raise RowsError(f"rows have {found[1]} features, where the model was trained on {shape[0]}")
    dimensions = ", ".join(map(str, shape))
    raise RowsError(
        f"rows are of shape {tuple(found)}, where the model takes (rows, {dimensions}); they are not "
        "reshaped, since their values may be in another order"
    )
