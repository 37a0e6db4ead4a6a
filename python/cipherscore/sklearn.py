"""Estimators of scikit-learn that predict under encryption.

:class:`EncryptedClassifier` and :class:`EncryptedRegressor` take an estimator, fit a clone of it in
the clear, compile it, make keys, and predict on encrypted rows: in this process, or through a fleet.
What scikit-learn does with an estimator it does with these: pipelines, cross-validation, searches,
displays::

    model = EncryptedClassifier(XGBClassifier(max_depth=3))
    cross_val_score(model, X, y)

A model that is fitted already goes in frozen: ``EncryptedClassifier(FrozenEstimator(fitted)).fit(X)``.
This module needs scikit-learn 1.6 or newer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal, Optional, TypeVar, Union

import numpy as np
import numpy.typing as npt
import sklearn

try:
    import sklearn.frozen
    import sklearn.utils.validation
except ImportError:
    raise ImportError(
        f"cipherscore.sklearn needs scikit-learn 1.6 or newer, and this is {sklearn.__version__}. "
        "Beside concrete-ml, which asks for an older one, install the estimators into an environment "
        "of their own; cipherscore.deployment and cipherscore.Fleet work with either"
    ) from None
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _native
from ._rows import is_frame
from ._scorer import Scorer, environment_fleet
from .compiler import Bins, Ranges
from .deployment import FHEModelClient
from .errors import CompileError, NotServedError, RangeError
from .fleet import Fleet

__all__ = ["EncryptedClassifier", "EncryptedRegressor"]

_PathLike = Union[str, "os.PathLike[str]"]
_Self = TypeVar("_Self", bound="_Encrypted")

# Pause between two attempts to reach a model that workers are about to open, in seconds.
_PAUSE = 0.2


def _check_classes(y: Any, weights: Any) -> None:
    """Refuse what would be a model that gives every row the same answer."""
    check_classification_targets(y)
    if len(np.unique(y)) < 2:
        raise ValueError("there is nothing to classify: all rows are of one class")
    if weights is not None and len(np.unique(y[np.asarray(weights) != 0])) < 2:
        raise ValueError("there is nothing to classify: sample_weight leaves rows of one class")


class _Encrypted(MetaEstimatorMixin, BaseEstimator):
    """What classifier and regressor share."""

    def __init__(
        self,
        estimator: Any,
        *,
        fleet: Union[Fleet, Literal["environment"], None] = None,
        models_dir: Optional[_PathLike] = None,
        serve_timeout: float = 60.0,
        key_dir: Optional[_PathLike] = None,
        calibrate: bool = True,
        ranges: Optional[Ranges] = None,
        outside: Literal["raise", "clip"] = "raise",
        bins: Optional[Bins] = None,
        max_bins: Optional[int] = None,
        max_error: float = 1e-3,
        hide: bool = True,
        p_fail: float = 2.0**-128,
    ) -> None:
        self.estimator = estimator
        self.fleet = fleet
        self.models_dir = models_dir
        self.serve_timeout = serve_timeout
        self.key_dir = key_dir
        self.calibrate = calibrate
        self.ranges = ranges
        self.outside = outside
        self.bins = bins
        self.max_bins = max_bins
        self.max_error = max_error
        self.hide = hide
        self.p_fail = p_fail

    def __sklearn_clone__(self: _Self) -> _Self:
        # A fleet is connections: clones use the same one.
        parameters = self.get_params(deep=False)
        shared = {"fleet": parameters.pop("fleet")}
        return type(self)(**{k: clone(v, safe=False) for k, v in parameters.items()}, **shared)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = get_tags(self.estimator).input_tags.allow_nan
        tags.input_tags.sparse = False
        tags.target_tags.required = not isinstance(self.estimator, FrozenEstimator)
        return tags

    def _fit(self: _Self, X: Any, y: Any, fit_params: dict[str, Any]) -> _Self:
        if self.outside not in ("raise", "clip"):
            raise ValueError("outside is 'raise' or 'clip'")
        if not (self.fleet is None or self.fleet == "environment" or isinstance(self.fleet, Fleet)):
            raise TypeError("fleet is a cipherscore.Fleet, 'environment' or None")
        if isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator.estimator
            check_is_fitted(self.estimator_)
            self._take_features()
            rows = self._rows(X, reset=not hasattr(self, "n_features_in_"))
        else:
            rows, y = validate_data(
                self, X, y, dtype=np.float64, y_numeric=is_regressor(self),
                ensure_all_finite=self._finite(), ensure_min_samples=2,
            )
            if is_classifier(self):
                _check_classes(y, fit_params.get("sample_weight"))
            named = rows
            if hasattr(self, "feature_names_in_") and is_frame(X):
                # With the names that reports and ranges use.
                named = type(X)(rows, index=X.index, columns=self.feature_names_in_)
            self.estimator_ = clone(self.estimator).fit(named, y, **fit_params)
        self._compile(rows)
        return self

    def _take_features(self) -> None:
        """Features are those that the frozen estimator was fitted with."""
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                delattr(self, name)
            value = getattr(self.estimator_, name, None)
            if value is not None:
                setattr(self, name, value)

    def _compile(self, rows: npt.NDArray[np.float64]) -> None:
        options = {
            "calibration": rows if self.calibrate else None,
            "ranges": self.ranges,
            "bins": self.bins,
            "max_bins": self.max_bins,
            "max_error": self.max_error,
            "hide": self.hide,
            "p_fail": self.p_fail,
        }
        scorer = Scorer.compile(self.estimator_, self.key_dir, options)
        if scorer.client.is_classifier != is_classifier(self):
            kind = "probabilities" if is_classifier(self) else "predictions"
            raise CompileError(
                f"{type(self.estimator_).__name__} compiles to a model without {kind}, which "
                f"{type(self).__name__} needs"
            )
        if self.outside == "clip":
            self._limits = self._clip_limits(rows, scorer.client.client.feature_names)
        if self.models_dir is not None:
            scorer.serve(Path(self.models_dir))
        self._scorer = scorer
        self.report_ = scorer.report
        self.model_id_ = scorer.client.model_id

    def _clip_limits(self, rows: npt.NDArray[np.float64], names: list[str]) -> Any:
        """Smallest and largest values that a compiled linear model takes."""
        if self.ranges is None:
            low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
            margin = (high - low) * _native.RANGE_MARGIN
            return low - margin, high + margin
        anything = (-np.inf, np.inf)
        return np.array([self.ranges.get(name, anything) for name in names]).T

    def _finite(self) -> Any:
        return "allow-nan" if get_tags(self.estimator).input_tags.allow_nan else True

    def _rows(self, X: Any, reset: bool = False) -> npt.NDArray[np.float64]:
        rows: npt.NDArray[np.float64] = validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite=self._finite()
        )
        return rows

    def _scores(self, X: Any) -> npt.NDArray[np.float64]:
        check_is_fitted(self, "model_id_")
        rows = self._rows(X)
        if self.outside == "clip":
            rows = np.clip(rows, *self._limits)
        try:
            return self._evaluate(rows)
        except RangeError as error:
            # Of the rows of another fold, say: whoever sees NaN as a score looks here.
            raise RangeError(
                f"{error}, by default that of the rows of fit, and wider as far as that costs nothing. "
                "outside='clip' takes the end of the rows of fit and a tenth of its width instead, and "
                "ranges={feature: (low, high)} says another"
            ) from None

    def _evaluate(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.fleet is None:
            return self._scorer.locally(rows)
        fleet = environment_fleet() if self.fleet == "environment" else self.fleet
        score = fleet.predict_proba if is_classifier(self) else fleet.predict
        deadline = time.monotonic() + self.serve_timeout
        while True:
            try:
                return np.asarray(score(self._scorer.client, rows))
            except NotServedError:
                # Workers look into their folder of models from time to time.
                if self.models_dir is None or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_id_")

    @property
    def client_(self) -> FHEModelClient:
        """The data owner's side of the fitted model: encrypts, decrypts, and holds the keys."""
        check_is_fitted(self)
        return self._scorer.client

    def save(self, path_dir: _PathLike) -> None:
        """Write the compiled model as ``FHEModelDev.save`` does; without keys.

        Args:
            path_dir: An empty folder, or one that is not there yet.
        """
        check_is_fitted(self)
        folder = Path(path_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        self._scorer.save(folder)


_PARAMETERS = """
    Parameters
    ----------
    estimator : estimator
        What :func:`cipherscore.compiler.compile_model` takes: trees, ensembles of trees and linear
        models of scikit-learn, XGBoost and LightGBM, and pipelines of scalers and such models. A
        clone of it is fitted, in the clear. A ``sklearn.frozen.FrozenEstimator`` is taken as it is;
        ``fit(X)`` then compiles it only.
    fleet : cipherscore.Fleet, "environment" or None
        Where rows are evaluated: by workers behind a queue, by those that ``CIPHERSCORE_BROKER_URL``
        and ``CIPHERSCORE_REDIS_URL`` name, or in this process. Only estimators with a ``Fleet``
        object cannot be pickled, as ``n_jobs`` does.
    models_dir : path or None
        A folder that workers follow (``cipherscore worker start --models``). ``fit`` puts
        ``server.zip`` there, and leaves it there. None: somebody else serves the model.
    serve_timeout : float
        Seconds that a prediction waits until workers have opened the model in ``models_dir``.
    key_dir : path or None
        Where keys are kept, in a folder for each model; None keeps them in memory. Pickles and
        copies never hold keys.
    calibrate : bool
        Whether the rows of ``fit`` are the calibration: linear models need them, or ``ranges``;
        with them, thresholds of trees are hidden among decoys.
    ranges : mapping or None
        Smallest and largest value of a linear model's features, by the names of columns
        (of arrays ``f0``, ``f1``, ..); by default those of the rows of ``fit``, and a tenth of their
        width beyond.
    outside : "raise" or "clip"
        What becomes of a value of a linear model that is outside of its range: an error, or the end
        of the range. Trees take any value.
    bins, max_bins, max_error, hide, p_fail
        Those of :func:`cipherscore.compiler.compile_model`.

    Attributes
    ----------
    estimator_ : estimator
        The fitted one, in the clear.
    report_ : dict
        What the compiler says: columns, security, bytes of a row, agreement.
    model_id_ : str
        By which jobs name the model.
    client_ : cipherscore.deployment.FHEModelClient
        With the keys.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.
"""


class EncryptedClassifier(ClassifierMixin, _Encrypted):
    __doc__ = f"""A classifier that predicts on encrypted rows.
{_PARAMETERS}    classes_ : array
        Labels, in the order of the probabilities.
    """

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> EncryptedClassifier:
        """Fit a clone of the estimator, compile it, and make keys.

        Args:
            X: Rows.
            y: Their labels; of a frozen estimator, nothing.
            fit_params: For the estimator's ``fit``.

        Raises:
            CompileError: What was fitted cannot be compiled; says what could be.
        """
        if not is_classifier(self.estimator):
            raise ValueError(f"{type(self.estimator).__name__} is no classifier")
        self._fit(X, y, fit_params)
        self.classes_ = np.asarray(self.estimator_.classes_)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities of the classes, of shape (rows, classes)."""
        # Sums of rounded leaves may be a little less than 0 or more than 1, which metrics refuse.
        probabilities: npt.NDArray[np.float64] = np.clip(self._scores(X), 0.0, 1.0)
        sums = probabilities.sum(axis=1, keepdims=True)
        np.divide(probabilities, sums, out=probabilities, where=sums > 0)
        return probabilities

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Logarithms of the probabilities, of shape (rows, classes)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the label of the most probable class of each row."""
        probabilities = self.predict_proba(X)
        found: npt.NDArray[Any] = self.classes_[np.argmax(probabilities, axis=1)]
        return found


class EncryptedRegressor(RegressorMixin, _Encrypted):
    __doc__ = f"""A regressor that predicts on encrypted rows.
{_PARAMETERS}"""

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> EncryptedRegressor:
        """Fit a clone of the estimator, compile it, and make keys.

        Args:
            X: Rows.
            y: Their targets; of a frozen estimator, nothing.
            fit_params: For the estimator's ``fit``.

        Raises:
            CompileError: What was fitted cannot be compiled; says what could be.
        """
        if not is_regressor(self.estimator):
            raise ValueError(f"{type(self.estimator).__name__} is no regressor")
        return self._fit(X, y, fit_params)

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Predictions, of shape (rows,)."""
        return self._scores(X)
