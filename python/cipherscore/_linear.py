"""Linear models of scikit-learn: weights, intercepts, and what becomes of the sum."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from .errors import CompileError

_REGRESSORS = {
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LinearRegression",
    "LinearSVR",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
}
_LOG_LINKS = {"GammaRegressor", "PoissonRegressor"}
_LOGISTIC = {"LogisticRegression", "LogisticRegressionCV"}


def _classifier(model: Any) -> dict[str, Any]:
    outputs = len(np.atleast_2d(model.coef_))
    if type(model).__name__ == "SGDClassifier":
        if model.loss != "log_loss":
            raise CompileError(
                f"SGDClassifier(loss={model.loss!r}) has no probabilities; train it with "
                "loss='log_loss'"
            )
        one_for_each = True
    else:
        choice = getattr(model, "multi_class", "deprecated")
        by_solver = getattr(model, "solver", "") == "liblinear"
        one_for_each = choice == "ovr" or (choice != "multinomial" and by_solver)
    if outputs == 1:
        # A softmax of (-x, x) is a sigmoid of 2 x.
        both = getattr(model, "multi_class", None) == "multinomial"
        return {"link": "sigmoid", "link_scale": 2.0 if both else 1.0, "probabilities": True}
    return {"link": "one-vs-all" if one_for_each else "softmax", "probabilities": True}


def read(model: Any) -> Optional[dict[str, Any]]:
    """Weights, intercepts and link of a linear model of scikit-learn; none of another model."""
    name = type(model).__name__
    if name in _REGRESSORS:
        link = {"link": "identity", "probabilities": False}
    elif name in _LOG_LINKS:
        link = {"link": "exp", "probabilities": False}
    elif name == "TweedieRegressor":
        # link="auto" is the identity for normally distributed targets (power <= 0).
        identity = model.link == "identity" or (model.link == "auto" and model.power <= 0)
        link = {"link": "identity" if identity else "exp", "probabilities": False}
    elif name in _LOGISTIC or name == "SGDClassifier":
        link = _classifier(model)
    else:
        return None
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercepts = np.broadcast_to(np.ravel(model.intercept_), (len(weights),))
    return {
        "weights": np.ascontiguousarray(weights),
        "intercepts": [float(value) for value in intercepts],
        **link,
    }


SUPPORTED = (
    "LinearRegression, Ridge, Lasso, ElasticNet and other linear regressors, Poisson-, Gamma- and "
    "TweedieRegressor, LogisticRegression and SGDClassifier(loss='log_loss')"
)
