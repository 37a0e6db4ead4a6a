"""Fitted models to artifacts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, Optional

import numpy as np
import numpy.typing as npt

from . import _linear, _native, _trees
from ._rows import as_rows, is_frame
from .errors import CompileError, UnsupportedModelError

Bins = Literal["padded", "used", "full"]
WantedForm = Literal["both", "bulk", "rows"]
Ranges = Mapping[str, "tuple[float, float]"]

_SUPPORTED = (
    f"scikit-learn's {_trees.SUPPORTED}; its {_linear.SUPPORTED}; its pipelines of scalers and such "
    "models, where skl2onnx is installed; XGBClassifier, XGBRegressor and Booster of XGBoost; "
    "LGBMClassifier, LGBMRegressor and Booster of LightGBM; and compiled models of Concrete ML"
)


# What no converter helps with, and what does instead.
_KERNEL = (
    "its kernel compares a row with training rows. LinearSVC, LogisticRegression and trees are taken"
)
_NEIGHBOURS = (
    "it compares a row with all training rows. Trees are taken; so are compiled "
    "KNeighborsClassifier of Concrete ML"
)
_LAYERS = (
    "its layers compute on each other's results. Trees are taken; so are compiled networks of "
    "Concrete ML"
)
_REFUSED = {
    "SVC": _KERNEL,
    "SVR": _KERNEL,
    "NuSVC": _KERNEL,
    "NuSVR": _KERNEL,
    "OneClassSVM": _KERNEL,
    "GaussianProcessClassifier": _KERNEL,
    "GaussianProcessRegressor": _KERNEL,
    "KNeighborsClassifier": _NEIGHBOURS,
    "KNeighborsRegressor": _NEIGHBOURS,
    "RadiusNeighborsClassifier": _NEIGHBOURS,
    "RadiusNeighborsRegressor": _NEIGHBOURS,
    "MLPClassifier": _LAYERS,
    "MLPRegressor": _LAYERS,
}


def compile_model(
    model: Any,
    *,
    calibration: Any = None,
    ranges: Optional[Ranges] = None,
    bins: Optional[Bins] = None,
    max_bins: Optional[int] = None,
    max_error: float = 1e-3,
    hide: bool = True,
    p_fail: float = 2.0**-128,
    form: WantedForm = "both",
) -> _native.Compiled:
    """Compile a fitted model, so that rows are scored in bulk, and trees also one row at a time.

    Trees are not quantised: every row reaches the leaf that it reaches in the clear model, and only
    leaf values are rounded, within ``max_error``. With ``calibration`` the model is asked what it
    answers to these rows, and what does not agree is refused.

    Args:
        model: A fitted model of scikit-learn, XGBoost or LightGBM.
        calibration: Rows like those to come, such as the training rows. Linear models need them, or
            ``ranges``. With them thresholds of trees are mixed with decoys.
        ranges: Of a linear model's features, by name (``f0``, ``f1``, .. where they have none).
        bins: Which thresholds of trees a data owner is offered: ``"padded"`` with decoys (the
            default, with ``calibration``), ``"used"`` as they are (the default without it), or
            ``"full"``, a grid of quantiles, which changes decisions.
        max_bins: Merge the thresholds of each feature to at most so many: a smaller upload, and
            decisions that may differ.
        max_error: Largest error of rounding, relative to what a raw output can be.
        hide: Whether replies hide trees from data owners. Linear models are never hidden.
        p_fail: Probability that any score of a batch is wrong, at most.
        form: Of trees: ``"bulk"``, for thousands of rows at a time, ``"rows"``, for single rows, or
            ``"both"``, where the model fits both, and else the one that it fits. Linear models are for
            bulk.

    Raises:
        CompileError: A model that cannot be read, or that fits no parameters of 128 bits of
            security; says what would fit.
    """
    if not p_fail > 0:
        raise CompileError("p_fail is a probability from 2**-1024 to 2**-20")
    saved = _saved(model)
    rows = None
    if calibration is not None:
        categories = None if saved is None else _native.file_categories(saved, None)
        rows = as_rows(calibration, _names(model), categories=categories)
        rows = rows.astype(np.float64, copy=False)
    options: Any = {
        "calibration": rows,
        "expected": None if rows is None else _answers(model, calibration),
        "missing": _missing(model),
        "rounds": _rounds(model),
        "ranges": None if ranges is None else [(name, *ends) for name, ends in ranges.items()],
        "bins": bins or ("used" if rows is None else "padded"),
        "max_bins": max_bins,
        "max_error": max_error,
        "hide": hide,
        "log2_p_fail": math.log2(p_fail),
        "form": form,
    }
    library = type(model).__module__.partition(".")[0]
    if saved is not None:
        return _native.compile_file(saved, None, options)
    if library == "sklearn":
        return _sklearn(model, options)
    raise UnsupportedModelError(
        f"{type(model).__module__}.{type(model).__qualname__} cannot be compiled. What can be: "
        f"{_SUPPORTED}"
    )


def _saved(model: Any) -> Optional[bytes]:
    """What a boosting library saves of its model; None of any other library."""
    library = type(model).__module__.partition(".")[0]
    if library == "xgboost":
        return _xgboost(model)
    return _lightgbm(model) if library == "lightgbm" else None


def _answers(model: Any, rows: Any) -> Optional[npt.NDArray[np.float64]]:
    """What the model itself answers to rows, with which the compiled one is compared.

    None where it answers labels or distances: those are no scores of the compiled model.
    """
    scores = getattr(model, "predict_proba", None)
    if scores is None and not hasattr(model, "classes_"):
        scores = getattr(model, "predict", None)
    if scores is None:
        return None
    with warnings.catch_warnings():
        # That rows have names or none, which the model says of its own calls.
        warnings.simplefilter("ignore")
        if type(model).__name__ == "Booster" and type(model).__module__.startswith("xgboost"):
            import xgboost

            if "multi:softmax" in model.save_config():
                return None
            names = model.feature_names
            rows = rows[names] if is_frame(rows) and names else rows
            matrix = xgboost.DMatrix(rows, enable_categorical=is_frame(rows))
            answers = model.predict(matrix, validate_features=False)
        else:
            names = _names(model)
            rows = rows[names] if is_frame(rows) and names else rows
            answers = scores(rows)
    answers = np.asarray(answers, dtype=np.float64)
    return np.ascontiguousarray(answers.reshape(len(answers), -1))


def _missing(model: Any) -> list[float]:
    """Numbers that a model of XGBoost takes for missing values, beside NaN."""
    mark = getattr(model, "missing", None) if hasattr(model, "get_booster") else None
    return [] if mark is None or not np.isfinite(mark) else [float(mark)]


def _rounds(model: Any) -> Optional[str]:
    """By how many rounds the model itself predicts, where training stopped early."""
    if not type(model).__module__.startswith("xgboost"):
        return None
    return "best" if hasattr(model, "get_booster") else "all"


def _names(model: Any) -> Optional[list[str]]:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _fitted(model: Any, attribute: str) -> None:
    if not hasattr(model, attribute):
        raise CompileError(f"this {type(model).__name__} is not fitted: call fit(X, y) first")


def _xgboost(model: Any) -> bytes:
    if hasattr(model, "get_booster"):
        try:
            model = model.get_booster()
        except Exception as error:  # its own class, which is a ValueError only by accident
            raise CompileError(f"this {type(model).__name__} is not fitted: {error}") from None
    if not hasattr(model, "save_raw"):
        raise CompileError(f"{type(model).__qualname__} of XGBoost cannot be compiled")
    return bytes(model.save_raw("json"))


def _lightgbm(model: Any) -> bytes:
    if hasattr(model, "booster_") or hasattr(type(model), "booster_"):
        try:
            model = model.booster_
        except Exception as error:  # LightGBM's own class
            raise CompileError(f"this {type(model).__name__} is not fitted: {error}") from None
    if not hasattr(model, "model_to_string"):
        raise CompileError(f"{type(model).__qualname__} of LightGBM cannot be compiled")
    return str(model.model_to_string()).encode()


def _sklearn(model: Any, options: Any) -> _native.Compiled:
    if not hasattr(model, "fit"):
        raise CompileError(f"{type(model).__qualname__} is no model of scikit-learn")
    if not any(hasattr(model, name) for name in ("n_features_in_", "coef_", "tree_", "steps")):
        _fitted(model, "n_features_in_")
    last = model.steps[-1][1] if getattr(model, "steps", None) else model
    reason = _REFUSED.get(type(last).__name__)
    if reason is not None:
        raise UnsupportedModelError(
            f"{type(last).__name__} cannot be compiled: {reason}. What can be: {_SUPPORTED}"
        )
    trees, linear = _trees.read(model), _linear.read(model)
    read = trees or linear
    if read is None:
        try:
            return _native.compile_file(_onnx(model), "onnx", options)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot be compiled ({error}). What can be: {_SUPPORTED}"
            ) from None
        except CompileError as error:
            raise CompileError(f"{type(model).__name__} cannot be compiled: {error}") from None
    classes = getattr(model, "classes_", None) if read["probabilities"] else None
    described: Any = {
        "class_name": type(model).__name__,
        "features": _names(model) or [f"f{at}" for at in range(model.n_features_in_)],
        "single_precision": trees is not None and read.get("single_precision", True),
        "link": read["link"],
        "link_scale": read.get("link_scale", 1.0),
        "probabilities": read["probabilities"],
        "classes": [] if classes is None else [str(label) for label in classes],
    }
    if trees is not None:
        return _native.compile_trees(described, read["base"], read["trees"], options)
    return _native.compile_linear(described, read["intercepts"], read["weights"], options)


def _onnx(model: Any) -> bytes:
    """Other models, such as pipelines, as ONNX."""
    try:
        from skl2onnx import to_onnx
    except ImportError:
        raise UnsupportedModelError(
            f"{type(model).__name__} is read by way of ONNX, for which skl2onnx is missing: "
            f"pip install 'cipherscore[sklearn]'. Without it: {_SUPPORTED}"
        ) from None
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise CompileError(f"this {type(model).__name__} is not fitted: call fit(X, y) first")
    sample = np.zeros((1, features), dtype=np.float32)
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    try:
        converted = to_onnx(model, sample, options=options)
    except Exception as error:  # whatever its converters raise
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be converted to ONNX: {error}. What can be compiled: "
            f"{_SUPPORTED}"
        ) from error
    return bytes(converted.SerializeToString())
