"""The models of this folder, and the data that they are trained on."""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

import modules
import numpy
from sklearn import datasets

from concrete.ml import sklearn as models
from concrete.ml.quantization import QuantizedModule


def call_text(function: Callable, arguments: Dict[str, Any]) -> str:
    """Write a call as Python source, so that a reader can repeat it."""
    return f"{function.__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


@dataclass
class Data:
    """A data set that scikit-learn ships or makes, so that nothing has to be downloaded."""

    loader: Callable
    arguments: Dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "sklearn.datasets." + call_text(self.loader, self.arguments)

    def load(self) -> Tuple[numpy.ndarray, numpy.ndarray, List[str]]:
        """Return features, targets and the names of the features."""
        loaded = self.loader(**self.arguments)
        if isinstance(loaded, tuple):
            features, targets = loaded[:2]
            return features, targets, [f"f{i}" for i in range(features.shape[1])]
        names = [name.replace(",", " ") for name in loaded.feature_names]
        return loaded.data, loaded.target, names


BREAST_CANCER = Data(datasets.load_breast_cancer)
DIABETES = Data(datasets.load_diabetes)
DIGITS = Data(datasets.load_digits)
IRIS = Data(datasets.load_iris)
WINE = Data(datasets.load_wine)


def synthetic_classes(n_features: int, n_classes: int) -> Data:
    """A classification problem whose features have about the same scale, as SGD needs."""
    arguments = dict(
        n_samples=300,
        n_features=n_features,
        n_informative=n_features - 2,
        n_classes=n_classes,
        random_state=0,
    )
    return Data(datasets.make_classification, arguments)


def synthetic_regression(n_features: int, noise: float) -> Data:
    """A regression problem whose features have about the same scale, as SGD needs."""
    arguments = dict(n_samples=300, n_features=n_features, noise=noise, random_state=0)
    return Data(datasets.make_regression, arguments)


@dataclass
class Case:
    """One model: what is trained on which data, and how it is saved."""

    name: str
    model_class: type
    arguments: Dict[str, Any]
    data: Data
    #: Rows taken from the test set, then rows on rounding ties, then rows out of range.
    rows: Tuple[int, int, int] = (5, 1, 2)
    #: Also keep a key, a ciphertext and a result of the real client and server.
    golden: bool = False
    #: Save only the uncompiled form, Concrete ML's default, under the names that it gives.
    via_mlir: bool = False
    #: Save only the compiled form, of a version whose keys are not read.
    refused: bool = False
    #: Rows to train on, classes in proportion; none for three quarters of all.
    train_size: Optional[int] = None

    @property
    def constructor(self) -> str:
        """The call that makes the model."""
        return call_text(self.model_class, self.arguments)


@dataclass
class TorchCase(Case):
    """A torch module, which `compile_torch_model` quantises; `arguments` are its own."""

    module: Callable = modules.Perceptron
    #: Dimensions of one input; a row of `rows.csv` is flat.
    shape: Tuple[int, ...] = ()

    @property
    def constructor(self) -> str:
        """The call that makes the model."""
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        return f"compile_torch_model({self.module.__name__}(), {arguments})"


def torch_case(
    module: Callable, shape: Tuple[int, ...], data: Data, rows: Tuple[int, int, int], **arguments
) -> TorchCase:
    """A torch module, named after its class."""
    name = f"torch_{module.__name__.lower()}"
    return TorchCase(name, QuantizedModule, arguments, data, rows, module=module, shape=shape)


# A row of a tree takes seconds in FHE, one of a linear model takes milliseconds.
TREE_ROWS = (1, 1, 1)


# Neural networks of these cases have few bootstraps a row.
NETWORK_ROWS = (3, 1, 1)


def network(bits: int, accumulator_bits: int, learning_rate: float) -> Dict[str, Any]:
    """Arguments of a neural network of two layers whose tables stay small."""
    return dict(
        module__n_layers=2,
        module__n_w_bits=bits,
        module__n_a_bits=bits,
        module__n_accum_bits=accumulator_bits,
        module__n_hidden_neurons_multiplier=1,
        max_epochs=100,
        lr=learning_rate,
        verbose=0,
    )


CASES = [
    Case(
        "logistic_regression_binary",
        models.LogisticRegression,
        dict(n_bits=8, random_state=0),
        BREAST_CANCER,
    ),
    Case(
        "logistic_regression_multiclass",
        models.LogisticRegression,
        dict(n_bits=7, random_state=0),
        IRIS,
        golden=True,
    ),
    Case("linear_regression", models.LinearRegression, dict(n_bits=8), DIABETES, golden=True),
    Case("ridge", models.Ridge, dict(n_bits=6, alpha=0.5), synthetic_regression(6, 3.0)),
    Case("lasso", models.Lasso, dict(n_bits=5, alpha=0.05), DIABETES),
    Case(
        "elastic_net",
        models.ElasticNet,
        dict(n_bits={"op_inputs": 6, "op_weights": 4}, alpha=0.1),
        synthetic_regression(12, 1.0),
    ),
    Case(
        "linear_svc",
        models.LinearSVC,
        dict(n_bits=6, random_state=0, dual=False),
        synthetic_classes(8, 2),
    ),
    Case(
        "linear_svc_multiclass",
        models.LinearSVC,
        dict(n_bits=5, random_state=0, dual=False),
        synthetic_classes(6, 3),
    ),
    Case("linear_svr", models.LinearSVR, dict(n_bits=7, random_state=0, C=10.0), DIABETES),
    Case(
        "sgd_classifier",
        models.SGDClassifier,
        dict(n_bits=8, random_state=0),
        synthetic_classes(5, 2),
    ),
    Case(
        "sgd_classifier_multiclass",
        models.SGDClassifier,
        dict(n_bits=6, random_state=0),
        synthetic_classes(6, 4),
    ),
    Case(
        "sgd_regressor",
        models.SGDRegressor,
        dict(n_bits=7, random_state=0),
        synthetic_regression(4, 2.0),
    ),
    Case("poisson_regressor", models.PoissonRegressor, dict(n_bits=8, alpha=1e-4), DIABETES),
    Case("gamma_regressor", models.GammaRegressor, dict(n_bits=4, alpha=1e-3), DIABETES),
    Case(
        "tweedie_regressor",
        models.TweedieRegressor,
        dict(n_bits=6, power=1.5, link="log", alpha=1e-3),
        DIABETES,
    ),
    Case(
        "decision_tree_classifier",
        models.DecisionTreeClassifier,
        dict(n_bits=4, max_depth=3, random_state=0),
        IRIS,
        TREE_ROWS,
    ),
    Case(
        "decision_tree_regressor",
        models.DecisionTreeRegressor,
        dict(n_bits={"op_inputs": 5, "op_leaves": 3}, max_depth=3, random_state=0),
        DIABETES,
        TREE_ROWS,
    ),
    Case(
        "random_forest_classifier",
        models.RandomForestClassifier,
        dict(n_bits=4, n_estimators=3, max_depth=2, random_state=0),
        WINE,
        TREE_ROWS,
    ),
    Case(
        "random_forest_regressor",
        models.RandomForestRegressor,
        dict(n_bits=3, n_estimators=4, max_depth=2, random_state=0),
        synthetic_regression(4, 2.0),
        TREE_ROWS,
    ),
    Case(
        "xgb_classifier_binary",
        models.XGBClassifier,
        dict(n_bits=5, n_estimators=3, max_depth=2, random_state=0),
        BREAST_CANCER,
        TREE_ROWS,
    ),
    Case(
        "xgb_classifier_multiclass",
        models.XGBClassifier,
        dict(n_bits=4, n_estimators=2, max_depth=2, random_state=0),
        IRIS,
        TREE_ROWS,
    ),
    Case(
        "xgb_regressor",
        models.XGBRegressor,
        dict(n_bits=5, n_estimators=4, max_depth=2, random_state=0),
        DIABETES,
        TREE_ROWS,
    ),
    Case(
        "neural_net_classifier",
        models.NeuralNetClassifier,
        network(bits=3, accumulator_bits=8, learning_rate=0.05),
        IRIS,
        NETWORK_ROWS,
    ),
    Case(
        "neural_net_classifier_binary",
        models.NeuralNetClassifier,
        network(bits=3, accumulator_bits=7, learning_rate=0.05),
        synthetic_classes(6, 2),
        NETWORK_ROWS,
    ),
    Case(
        "neural_net_regressor",
        models.NeuralNetRegressor,
        network(bits=4, accumulator_bits=8, learning_rate=0.1),
        synthetic_regression(5, 2.0),
        NETWORK_ROWS,
    ),
    Case(
        "k_neighbors_classifier",
        models.KNeighborsClassifier,
        dict(n_neighbors=5, n_bits=2),
        IRIS,
        (1, 1, 0),
        train_size=8,
    ),
    torch_case(modules.Perceptron, (4,), IRIS, (2, 1, 1), n_bits=3, rounding_threshold_bits=4),
    torch_case(
        modules.Convolutions, (1, 8, 8), DIGITS, (1, 0, 1), n_bits=2, rounding_threshold_bits=3
    ),
    Case(
        "via_mlir",
        models.DecisionTreeClassifier,
        dict(n_bits=3, max_depth=2, random_state=0),
        IRIS,
        TREE_ROWS,
        via_mlir=True,
    ),
]

# Models of older versions of Concrete ML, by the version.
OLDER = {
    "1.8.0": [
        Case("linear_svr_1_8", models.LinearSVR, dict(n_bits=6, random_state=0), DIABETES),
        Case(
            "decision_tree_classifier_1_8",
            models.DecisionTreeClassifier,
            dict(n_bits=4, max_depth=2, random_state=0),
            IRIS,
            TREE_ROWS,
        ),
    ],
    "1.7.0": [
        Case(
            "logistic_regression_1_7",
            models.LogisticRegression,
            dict(n_bits=6, random_state=0),
            IRIS,
        ),
        Case(
            "neural_net_classifier_1_7",
            models.NeuralNetClassifier,
            network(bits=2, accumulator_bits=5, learning_rate=0.05),
            synthetic_classes(4, 2),
            NETWORK_ROWS,
        ),
        # Its bootstrap keys have several levels.
        Case(
            "decision_tree_regressor_1_7",
            models.DecisionTreeRegressor,
            dict(n_bits={"op_inputs": 5, "op_leaves": 3}, max_depth=3, random_state=0),
            DIABETES,
            TREE_ROWS,
            refused=True,
        ),
    ],
}

# Ensembles of the size that people use. They take minutes to evaluate, so tests look at their
# circuits only; benchmarks evaluate them.
ENSEMBLE_ROWS = (3, 0, 0)
ENSEMBLES = [
    Case(
        "xgb50x4_breast_cancer",
        models.XGBClassifier,
        dict(n_estimators=50, max_depth=4, random_state=0),
        BREAST_CANCER,
        ENSEMBLE_ROWS,
    ),
    Case(
        "rf50x4_breast_cancer",
        models.RandomForestClassifier,
        dict(n_estimators=50, max_depth=4, random_state=0),
        BREAST_CANCER,
        ENSEMBLE_ROWS,
    ),
    Case(
        "xgbr50x3_diabetes",
        models.XGBRegressor,
        dict(n_estimators=50, max_depth=3, random_state=0),
        DIABETES,
        ENSEMBLE_ROWS,
    ),
]
