"""Trees of scikit-learn as arrays.

scikit-learn compares features in single precision with thresholds in double precision. Formats of
files round thresholds to single precision, and so move rows that lie between; arrays do not.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from .errors import CompileError

# Splits go this way until a library says otherwise: rows without a value are refused by it then.
_NO_MISSING = False


def _arrays(tree: Any, values: Any) -> dict[str, Any]:
    """A ``sklearn.tree._tree.Tree``, with what its leaves add."""
    missing = getattr(tree, "missing_go_to_left", None)
    if missing is None:
        missing = np.full(tree.node_count, _NO_MISSING)
    return {
        "feature": np.asarray(tree.feature, dtype=np.int64),
        "threshold": np.asarray(tree.threshold, dtype=np.float64),
        "left": np.asarray(tree.children_left, dtype=np.int64),
        "right": np.asarray(tree.children_right, dtype=np.int64),
        "missing_left": np.asarray(missing, dtype=bool),
        "values": np.ascontiguousarray(values, dtype=np.float64),
    }


def _single_output(model: Any) -> None:
    if getattr(model, "n_outputs_", 1) != 1:
        raise CompileError(
            f"{type(model).__name__} with {model.n_outputs_} outputs cannot be compiled; train one "
            "model for each output"
        )


def _probabilities(tree: Any) -> Any:
    """What predict_proba says at each node."""
    counts = tree.value[:, 0, :]
    sums = counts.sum(axis=1, keepdims=True)
    return counts / np.where(sums == 0, 1, sums)


def _averaged(model: Any, estimators: list[Any]) -> dict[str, Any]:
    """One tree, or the mean of many."""
    _single_output(model)
    count = len(estimators)
    if not hasattr(model, "classes_"):
        trees = [_arrays(one.tree_, one.tree_.value[:, 0, :1] / count) for one in estimators]
        return {"trees": trees, "base": [0.0], "link": "identity", "probabilities": False}
    classes = len(model.classes_)
    if classes < 2:
        raise CompileError("a classifier of one class gives the same score to every row")
    values = [_probabilities(one.tree_) / count for one in estimators]
    if classes == 2:
        values = [probabilities[:, 1:] for probabilities in values]
    return {
        "trees": [_arrays(one.tree_, value) for one, value in zip(estimators, values)],
        "base": [0.0] * (1 if classes == 2 else classes),
        "link": "complement" if classes == 2 else "identity",
        "probabilities": True,
    }


def _in_output(values: Any, output: int, outputs: int) -> Any:
    """What a tree adds to one raw output, and nothing to the others."""
    spread = np.zeros((len(values), outputs))
    spread[:, output] = values
    return spread


def _classifier_link(outputs: int, scale: float = 1.0) -> dict[str, Any]:
    link = "sigmoid" if outputs == 1 else "softmax"
    return {"link": link, "link_scale": scale, "probabilities": True}


def _gradient_boosting(model: Any) -> dict[str, Any]:
    """A constant, and trees that are scaled by the learning rate."""
    init = model.init_
    if init != "zero" and type(init).__module__.partition(".")[0] + type(init).__name__ not in (
        "sklearnDummyClassifier",
        "sklearnDummyRegressor",
    ):
        raise CompileError(
            f"{type(model).__name__}(init={type(init).__name__}(..)) cannot be compiled: the model "
            "that it begins with is another one. Leave init out"
        )
    outputs = model.estimators_.shape[1]
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    trees = [
        _arrays(
            one.tree_,
            _in_output(one.tree_.value[:, 0, 0] * model.learning_rate, output, outputs),
        )
        for stage in model.estimators_
        for output, one in enumerate(stage)
    ]
    result = {"trees": trees, "base": [float(value) for value in base[0]]}
    if not hasattr(model, "classes_"):
        return {**result, "link": "identity", "probabilities": False}
    # The exponential loss has half the logarithm of the odds.
    scale = 2.0 if model.loss == "exponential" else 1.0
    return {**result, **_classifier_link(outputs, scale)}


_HIST_LINKS = {
    "squared_error": "identity",
    "absolute_error": "identity",
    "quantile": "identity",
    "poisson": "exp",
    "gamma": "exp",
}


def _hist_gradient_boosting(model: Any) -> dict[str, Any]:
    """Trees that compare in double precision."""
    if getattr(model, "is_categorical_", None) is not None:
        raise CompileError(
            f"{type(model).__name__} with categorical features cannot be compiled; encode them as "
            "numbers first (OrdinalEncoder, OneHotEncoder), or use LightGBM"
        )
    outputs = len(model._predictors[0])
    trees = []
    for stage in model._predictors:
        for output, one in enumerate(stage):
            nodes = one.nodes
            leaf = nodes["is_leaf"].astype(bool)
            trees.append(
                {
                    "feature": nodes["feature_idx"].astype(np.int64),
                    "threshold": nodes["num_threshold"].astype(np.float64),
                    "left": np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    "right": np.where(leaf, -1, nodes["right"].astype(np.int64)),
                    "missing_left": nodes["missing_go_to_left"].astype(bool),
                    "values": _in_output(nodes["value"], output, outputs),
                }
            )
    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    result = {"trees": trees, "base": [float(value) for value in base]}
    if hasattr(model, "classes_"):
        return {**result, **_classifier_link(outputs), "single_precision": False}
    link = _HIST_LINKS.get(model.loss)
    if link is None:
        raise CompileError(f"{type(model).__name__}(loss={model.loss!r}) cannot be compiled")
    return {**result, "link": link, "probabilities": False, "single_precision": False}


def read(model: Any) -> Optional[dict[str, Any]]:
    """Trees of a model of scikit-learn, with its constant and its link; none of another model."""
    name = type(model).__name__
    if name in (
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
    ):
        return _averaged(model, [model])
    if name in (
        "RandomForestClassifier",
        "RandomForestRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
    ):
        return _averaged(model, model.estimators_)
    if name in ("GradientBoostingClassifier", "GradientBoostingRegressor"):
        return _gradient_boosting(model)
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return _hist_gradient_boosting(model)
    return None


SUPPORTED = (
    "DecisionTree, ExtraTree, RandomForest, ExtraTrees, GradientBoosting and HistGradientBoosting, "
    "each as Classifier and Regressor"
)
