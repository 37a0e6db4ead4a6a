#!/usr/bin/env python3
"""Writes the models of `onnx/`: what scikit-learn, XGBoost and LightGBM convert to, rows, and what
the library itself answers to them.

    pip install onnx skl2onnx onnxmltools onnxruntime scikit-learn xgboost lightgbm pandas
    python testdata/models/generate_onnx.py

Of each model NAME there are `NAME.onnx`, `NAME.rows.csv`, `NAME.scores.csv` and, where the library
tells leaves, `NAME.leaves.csv`; `manifest.csv` names the models and how close scores have to be.
Rows lie on thresholds and beside them. A row whose float32 threshold the converter rounded to the
other side of it is left out; at most a few are, or this script fails. `refused/` has models that
are not read.
"""

import pathlib
import warnings

import lightgbm
import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime
import xgboost
from onnx import TensorProto, numpy_helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

HERE = pathlib.Path(__file__).parent / "onnx"
FEATURES = 5
NO_ZIP = {"zipmap": False}
SINGLE, DOUBLE = 1e-5, 1e-9
warnings.filterwarnings("ignore")
random = np.random.default_rng(7)


def allow_numpy_integers():
    """The converter passes numpy's integers and booleans of histogram trees; onnx takes neither."""
    original = oh.make_attribute

    def plain(value):
        value = value.item() if isinstance(value, np.generic) else value
        return int(value) if isinstance(value, bool) else value

    def make_attribute(key, value, *args, **kwargs):
        value = [plain(v) for v in value] if isinstance(value, list) else value
        return original(key, value, *args, **kwargs)

    oh.make_attribute = make_attribute


def training(dtype=np.float32, missing=False):
    """Short decimals, so that rows are short files."""
    rows = random.normal(0, 1, (240, FEATURES)).round(2).astype(dtype)
    signal = rows @ [1.0, -0.7, 0.5, 0.0, 0.2] + 0.6 * rows[:, 0] * rows[:, 1]
    targets = {
        "real": signal.round(3),
        "count": np.exp(signal / 3).round(2),
        "two": (signal > 0.2).astype(int),
        "three": np.digitize(signal, [-0.7, 0.7]),
        "text": np.array(["high", "low", "middle"])[np.digitize(signal, [-0.7, 0.7])],
        "vector": np.stack([signal, -signal, rows[:, 2]], 1).round(3),
    }
    if missing:
        rows[::5, 0] = np.nan
        rows[::7, 1] = np.nan
    return rows, targets


def thresholds(model):
    """Pairs of feature and threshold of all tree operators."""
    pairs = set()
    for node in model.graph.node:
        attributes = {a.name: oh.get_attribute_value(a) for a in node.attribute}
        if "nodes_featureids" not in attributes:
            continue
        for name in ("nodes_values", "nodes_values_as_tensor", "nodes_splits"):
            values = attributes.get(name, [])
            if isinstance(values, onnx.TensorProto):
                values = numpy_helper.to_array(values).tolist()
            modes = attributes["nodes_modes"]
            is_leaf = [mode == b"LEAF" for mode in modes] if isinstance(modes, list) else None
            for position, value in enumerate(values):
                if not (is_leaf and is_leaf[position]) and np.isfinite(value):
                    pairs.add((attributes["nodes_featureids"][position], value))
    return sorted(pairs)


def cases(rows, model, dtype, missing):
    """Some rows of the data, some at thresholds, some with missing values."""
    chosen = [rows[k].copy() for k in range(24)]
    pairs = thresholds(model)
    for k in random.permutation(len(pairs))[:10]:
        feature, value = pairs[k]
        value = dtype(value)
        for near in (value, np.nextafter(value, dtype(9)), np.nextafter(value, dtype(-9))):
            row = rows[random.integers(len(rows))].copy()
            row[feature] = near
            chosen.append(row)
    for k in range(6 if missing else 0):
        row = rows[k].copy()
        row[random.permutation(FEATURES)[: k + 1]] = np.nan
        chosen.append(row)
    return np.array(chosen, dtype)


def answers(model, rows):
    """What onnxruntime computes: the output that is not labels."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = session.get_inputs()
    if len(inputs) == 1:
        feed = {inputs[0].name: rows}
    else:
        feed = {inp.name: rows[:, [k]] for k, inp in enumerate(inputs)}
    result = session.run(None, feed)[-1]
    if isinstance(result, list):
        result = np.array([list(entry.values()) for entry in result])
    return result.reshape(len(rows), -1).astype(np.float64)


def text(value):
    if isinstance(value, np.float32):
        return np.format_float_positional(value, unique=True, trim="-")
    return repr(float(value))


def write(path, table):
    lines = (",".join(text(v) for v in row) for row in table)
    path.write_text("\n".join(lines) + "\n")


manifest = []


def keep(name, model, rows, expected=None, leaves=None, tolerance=SINGLE):
    """Writes a model; `expected` is what the library answers, or else what onnxruntime does."""
    runtime = answers(model, rows)
    if expected is not None:
        expected = np.asarray(expected, np.float64).reshape(len(rows), -1)
        assert expected.shape == runtime.shape, (name, expected.shape, runtime.shape)
        close = np.isclose(expected, runtime, rtol=SINGLE, atol=SINGLE).all(1)
        dropped = np.flatnonzero(~close)
        assert len(dropped) <= 6 and (dropped >= 24).all(), (name, dropped)
        rows, runtime = rows[close], expected[close]
        leaves = None if leaves is None else np.asarray(leaves)[close]
        print(f"{name}: {len(rows)} rows, {len(dropped)} left out")
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    write(HERE / f"{name}.rows.csv", rows)
    single = tolerance == SINGLE
    write(HERE / f"{name}.scores.csv", runtime.astype(np.float32) if single else runtime)
    if leaves is not None:
        lines = (",".join(str(int(v)) for v in row) for row in leaves.reshape(len(rows), -1))
        (HERE / f"{name}.leaves.csv").write_text("\n".join(lines) + "\n")
    manifest.append(f"{name},{tolerance}")


def scikit(name, estimator, target, dtype=np.float32, missing=False, proba=None, **options):
    rows, targets = training(dtype, missing)
    estimator.fit(rows, targets[target])
    model = to_onnx(estimator, rows[:1], **options)
    chosen = cases(rows, model, dtype, missing)
    if proba is None:
        proba = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
    expected = getattr(estimator, proba)(chosen)
    leaves = estimator.apply(chosen) if hasattr(estimator, "apply") else None
    if leaves is None and hasattr(estimator, "steps") and hasattr(estimator[-1], "apply"):
        leaves = estimator[-1].apply(estimator[:-1].transform(chosen))
    keep(name, model, chosen, expected, leaves, SINGLE if dtype == np.float32 else DOUBLE)
    return model, chosen


def boosted(name, estimator, target, convert, missing=True, **options):
    rows, targets = training(np.float32, missing)
    estimator.fit(rows, targets[target])
    model = convert(estimator, initial_types=[("input", MlFloat([None, FEATURES]))], **options)
    chosen = cases(rows, model, np.float32, missing)
    classifier = hasattr(estimator, "predict_proba")
    expected = estimator.predict_proba(chosen) if classifier else estimator.predict(chosen)
    if isinstance(estimator, lightgbm.LGBMModel):
        leaves = estimator.predict(chosen, pred_leaf=True)
    else:
        leaves = estimator.apply(chosen)
    keep(name, model, chosen, expected, leaves)


def scikit_trees():
    small = {"n_estimators": 4, "max_depth": 3, "random_state": 1}
    tree = {"max_depth": 4, "random_state": 1}
    scikit("tree_two", DecisionTreeClassifier(**tree), "two")
    scikit("tree_three_text", DecisionTreeClassifier(**tree), "text", options=NO_ZIP)
    scikit("tree_real", DecisionTreeRegressor(**tree), "real")
    scikit("forest_two", RandomForestClassifier(**small), "two", options=NO_ZIP)
    scikit("forest_three", RandomForestClassifier(**small), "three")
    scikit("forest_real", RandomForestRegressor(**small), "real")
    scikit("forest_vector", RandomForestRegressor(**small), "vector")
    scikit("extra_two", ExtraTreesClassifier(**small), "two", options=NO_ZIP)
    scikit("extra_real", ExtraTreesRegressor(**small), "real")
    boosting = {"n_estimators": 4, "max_depth": 2, "random_state": 1}
    scikit("gradient_two", GradientBoostingClassifier(**boosting), "two", options=NO_ZIP)
    scikit("gradient_three", GradientBoostingClassifier(**boosting), "three", options=NO_ZIP)
    scikit("gradient_real", GradientBoostingRegressor(**boosting), "real")
    histogram = {"max_iter": 4, "max_depth": 3, "random_state": 1}
    scikit("histogram_two", HistGradientBoostingClassifier(**histogram), "two", missing=True)
    scikit(
        "histogram_three",
        HistGradientBoostingClassifier(**histogram),
        "three",
        missing=True,
        options=NO_ZIP,
    )
    scikit("histogram_real", HistGradientBoostingRegressor(**histogram), "real", missing=True)
    scikit(
        "scaled_forest",
        make_pipeline(StandardScaler(), RandomForestClassifier(**small)),
        "two",
        options=NO_ZIP,
    )
    scikit(
        "minmax_gradient",
        make_pipeline(MinMaxScaler(), GradientBoostingRegressor(**boosting)),
        "real",
    )


def scikit_linear():
    scikit("logistic_two", LogisticRegression(), "two")
    scikit("logistic_three", LogisticRegression(), "text", options=NO_ZIP)
    one_vs_rest = OneVsRestClassifier(LogisticRegression())
    scikit("logistic_one_vs_rest", one_vs_rest, "three", options=NO_ZIP)
    scikit("linear", LinearRegression(), "real")
    scikit("linear_vector", LinearRegression(), "vector")
    scikit("linear_double", LinearRegression(), "real", dtype=np.float64)
    scikit("ridge_minmax", make_pipeline(MinMaxScaler(), Ridge()), "real")
    scikit("lasso_robust", make_pipeline(RobustScaler(), Lasso(alpha=0.1)), "real")
    scikit("logistic_standard", make_pipeline(StandardScaler(), LogisticRegression()), "two")
    scikit("svc_two", LinearSVC(), "two", proba="decision_function")
    scikit("svc_three", LinearSVC(), "three", proba="decision_function")
    scikit("ridge_classifier", RidgeClassifier(), "three", proba="decision_function")
    scikit("svr", LinearSVR(), "real")
    sgd = SGDClassifier(loss="log_loss", random_state=1)
    scikit("sgd_two", make_pipeline(StandardScaler(), sgd), "two", options=NO_ZIP)
    scikit("sgd_real", SGDRegressor(random_state=1), "real")
    scikit("poisson", PoissonRegressor(), "count")
    scikit("gamma", GammaRegressor(), "count")
    scikit("tweedie", TweedieRegressor(power=1.5), "count")


def dataframe():
    """One input for each column, as data frames are converted."""
    rows, targets = training()
    scaler = ColumnTransformer([("scaled", StandardScaler(), [0, 1, 2]), ("rest", "passthrough", [3, 4])])
    estimator = make_pipeline(scaler, LogisticRegression()).fit(rows, targets["two"])
    import pandas

    names = ["age", "income", "debt", "months", "score"]
    frame = pandas.DataFrame(rows, columns=names)
    scaler = ColumnTransformer(
        [("scaled", StandardScaler(), names[:3]), ("rest", "passthrough", names[3:])]
    )
    estimator = make_pipeline(scaler, LogisticRegression()).fit(frame, targets["two"])
    types = [(name, FloatTensorType([None, 1])) for name in names]
    model = convert_sklearn(estimator, initial_types=types, options={id(estimator): NO_ZIP})
    keep("dataframe", model, rows[:40], estimator.predict_proba(frame[:40]))


def boosting_libraries():
    xgb = {"n_estimators": 4, "max_depth": 3}
    boosted("xgboost_two", xgboost.XGBClassifier(**xgb), "two", convert_xgboost)
    boosted("xgboost_three", xgboost.XGBClassifier(**xgb), "three", convert_xgboost)
    boosted("xgboost_real", xgboost.XGBRegressor(**xgb), "real", convert_xgboost)
    poisson = xgboost.XGBRegressor(**xgb, objective="count:poisson")
    boosted("xgboost_poisson", poisson, "count", convert_xgboost)
    lgb = {"n_estimators": 4, "num_leaves": 6, "verbose": -1}
    boosted("lightgbm_two", lightgbm.LGBMClassifier(**lgb), "two", convert_lightgbm)
    boosted(
        "lightgbm_three", lightgbm.LGBMClassifier(**lgb), "three", convert_lightgbm, zipmap=False
    )
    boosted("lightgbm_real", lightgbm.LGBMRegressor(**lgb), "real", convert_lightgbm)
    boosted("lightgbm_split", lightgbm.LGBMRegressor(**lgb), "real", convert_lightgbm, split=2)
    poisson = lightgbm.LGBMRegressor(**lgb, objective="poisson")
    boosted("lightgbm_poisson", poisson, "count", convert_lightgbm)


def graph(nodes, outputs, elem=TensorProto.FLOAT, width=FEATURES, ml=3, initializer=(), notes=None):
    inputs = [oh.make_tensor_value_info("X", elem, [None, width])]
    outputs = [oh.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    body = oh.make_graph(nodes, "graph", inputs, outputs, initializer)
    opsets = [oh.make_opsetid("", 17), oh.make_opsetid("ai.onnx.ml", ml)]
    model = oh.make_model(body, opset_imports=opsets, ir_version=9)
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


SCORES = [("scores", TensorProto.FLOAT)]


def by_hand():
    """What converters do not write: every mode, version 5, odd transforms."""
    rows, _ = training()
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values")}
    nodes |= {key: [] for key in ("truenodeids", "falsenodeids", "missing_value_tracks_true")}
    for tree in range(12):
        # Children before their parent, so that positions have to be turned around.
        for row in [(0, modes[tree % 6], 3, 1), (1, "LEAF", 0, 0), (3, "LEAF", 0, 0)]:
            node, mode, yes, no = row
            for key, value in zip(
                nodes,
                (tree, node, tree % FEATURES, mode, 0.25, yes, no, int(tree >= 6 and node == 0)),
            ):
                nodes[key].append(value)
    attributes = {f"nodes_{key}": value for key, value in nodes.items()}
    leaves = [(tree, node) for tree in range(12) for node in (1, 3)]
    weights = [round(float(w), 2) for w in random.normal(0, 1, len(leaves))]
    modes_model = graph(
        [
            oh.make_node(
                "TreeEnsembleRegressor",
                ["X"],
                ["scores"],
                domain="ai.onnx.ml",
                **attributes,
                n_targets=2,
                aggregate_function="AVERAGE",
                base_values=[0.5, -0.5],
                post_transform="SOFTMAX",
                target_treeids=[tree for tree, _ in leaves],
                target_nodeids=[node for _, node in leaves],
                target_ids=[k % 2 for k in range(len(leaves))],
                target_weights=weights,
            )
        ],
        SCORES,
        notes={"feature_names": '["a", "b", "c", "d", "e"]'},
    )
    chosen = cases(rows, modes_model, np.float32, True)
    keep("modes", modes_model, chosen)
    keep("version_five", version_five(TensorProto.FLOAT), cases_five(np.float32))
    keep("version_five_double", version_five(TensorProto.DOUBLE), cases_five(np.float64), tolerance=DOUBLE)
    general = oh.make_node("Gemm", ["X", "w", "b"], ["raw"], alpha=2.0, beta=0.5, transB=1)
    matrix = numpy_helper.from_array(np.array([[1, 0, -2, 0.5, 1], [0, 1, 1, 1, -1]], np.float32), "w")
    bias = numpy_helper.from_array(np.array([0.25, -1], np.float32), "b")
    softmax = oh.make_node("Softmax", ["raw"], ["scores"], axis=1)
    keep("gemm_softmax", graph([general, softmax], SCORES, initializer=[matrix, bias]), rows[:24])
    for transform in ("NONE", "LOGISTIC"):
        one_row = oh.make_node(
            "LinearClassifier",
            ["X"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[0.5, -0.25, 1.0, 0.0, 0.125],
            intercepts=[0.1],
            classlabels_strings=["no", "yes"],
            post_transform=transform,
        )
        labels = [("label", TensorProto.STRING)] + SCORES
        keep(f"one_row_{transform.lower()}", graph([one_row], labels), rows[:24])


def doubles():
    """Histogram trees with the thresholds that the library has, which the converter rounds."""
    rows, targets = training(np.float64, True)
    estimator = HistGradientBoostingRegressor(max_iter=4, max_depth=3, random_state=1)
    estimator.fit(rows, targets["real"])
    keys = ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids")
    nodes = {f"nodes_{key}": [] for key in (*keys, "missing_value_tracks_true")}
    splits, leaves, weights = [], [], []
    for tree, (predictor,) in enumerate(estimator._predictors):
        for position, node in enumerate(predictor.nodes):
            leaf = bool(node["is_leaf"])
            entry = (tree, position, int(node["feature_idx"]), "LEAF" if leaf else "BRANCH_LEQ")
            entry += (int(node["left"]), int(node["right"]), int(node["missing_go_to_left"]))
            for key, value in zip(nodes, entry):
                nodes[key].append(value)
            splits.append(0.0 if leaf else node["num_threshold"])
            if leaf:
                leaves.append((tree, position))
                weights.append(node["value"])
    node = oh.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["scores"],
        domain="ai.onnx.ml",
        **nodes,
        nodes_values_as_tensor=numpy_helper.from_array(np.array(splits)),
        n_targets=1,
        base_values_as_tensor=numpy_helper.from_array(estimator._baseline_prediction.ravel()),
        target_treeids=[tree for tree, _ in leaves],
        target_nodeids=[node for _, node in leaves],
        target_ids=[0] * len(leaves),
        target_weights_as_tensor=numpy_helper.from_array(np.array(weights)),
    )
    model = graph([node], SCORES, TensorProto.DOUBLE)
    chosen = cases(rows, model, np.float64, True)
    keep("histogram_double", model, chosen, estimator.predict(chosen), tolerance=DOUBLE)


def version_five(elem):
    """Two trees of `TreeEnsemble`, with sets of categories and leaves that are shared."""
    real = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}[elem]

    def tensor(values, dtype=real):
        return numpy_helper.from_array(np.array(values, dtype))

    node = oh.make_node(
        "TreeEnsemble",
        ["X"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=2,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[0, 3],
        nodes_featureids=[0, 1, 2, 3],
        nodes_modes=tensor([0, 6, 6, 3], np.uint8),
        nodes_splits=tensor([0.1, 0, 0, -0.3]),
        nodes_truenodeids=[1, 0, 2, 1],
        nodes_trueleafs=[0, 1, 1, 1],
        nodes_falsenodeids=[2, 1, 3, 4],
        nodes_falseleafs=[0, 1, 1, 1],
        nodes_missing_value_tracks_true=[1, 1, 0, 1],
        membership_values=tensor([1, 2, 5, np.nan, 3, np.nan]),
        leaf_targetids=[0, 1, 0, 1, 0],
        leaf_weights=tensor([0.3, -1.7, 2.1, 0.9, -0.2]),
    )
    return graph([node], [("scores", elem)], elem, ml=5)


def cases_five(dtype):
    rows = training(dtype, True)[0][:48]
    rows[:, 1:3] = random.integers(0, 6, (48, 2))
    rows[:6, 0] = dtype(0.1)
    rows[6:9, 0] = np.nextafter(dtype(0.1), dtype(1))
    rows[9:12, 3] = dtype(-0.3)
    rows[12:14, 1] = np.nextafter(dtype(2), dtype(3))
    rows[14:16, 1] = np.nan
    return rows


def refuse(name, model, folder="refused"):
    (HERE / folder / f"{name}.onnx").write_bytes(model.SerializeToString())


STUMP = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
TARGET = {"target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0]}
REGRESSOR = STUMP | TARGET | {"target_weights": [1.0, 2.0], "n_targets": 1}


def broken():
    """Files that decode and contradict themselves."""
    for name, change in [
        ("itself_as_child", {"nodes_truenodeids": [0, 0, 0]}),
        ("one_child_twice", {"nodes_truenodeids": [2, 0, 0]}),
        ("child_that_is_not_there", {"nodes_truenodeids": [7, 0, 0]}),
        ("node_twice", {"nodes_nodeids": [0, 1, 1]}),
        ("short_list", {"nodes_values": [0.5, 0.0]}),
        ("column_that_is_not_there", {"nodes_featureids": [9, 0, 0]}),
        ("negative_column", {"nodes_featureids": [-1, 0, 0]}),
        ("weight_of_no_leaf", {"target_nodeids": [1, 5]}),
        ("weight_of_no_target", {"target_ids": [0, 1]}),
        ("many_targets", {"n_targets": 1 << 60}),
        ("bases_of_no_target", {"base_values": [1.0, 2.0]}),
        ("infinite_leaf", {"target_weights": [float("inf"), 0.0]}),
    ]:
        node = oh.make_node(
            "TreeEnsembleRegressor", ["X"], ["scores"], domain="ai.onnx.ml", **REGRESSOR | change
        )
        refuse(name, graph([node], SCORES), "broken")
    circle = [oh.make_node("Identity", ["a"], ["b"]), oh.make_node("Identity", ["b"], ["a"])]
    circle.append(oh.make_node("Add", ["a", "X"], ["scores"]))
    refuse("circle_of_operators", graph(circle, SCORES), "broken")
    refuse("no_operator", graph([], SCORES), "broken")
    twice = [oh.make_node("Identity", ["X"], ["scores"])] * 2
    refuse("computed_twice", graph(twice, SCORES), "broken")
    matrix = oh.make_node("MatMul", ["X", "w"], ["scores"])
    for name, dims in [("huge_shape", [1 << 40, 1 << 40]), ("negative_shape", [-5, 1]), ("shape", [5, 2])]:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, float_data=[1.0] * 5)
        refuse(name, graph([matrix], SCORES, initializer=[tensor]), "broken")
    version = version_five(TensorProto.FLOAT)
    for name, change in [
        ("five_circle", {"nodes_truenodeids": [0, 0, 2, 1]}),
        ("five_no_leaf", {"nodes_falsenodeids": [2, 99, 3, 4]}),
        ("five_root", {"tree_roots": [0, 4]}),
        ("five_shared_root", {"tree_roots": [0, 0]}),
        ("five_few_members", {"membership_values": numpy_helper.from_array(np.array([1.0], np.float32))}),
        ("five_mode", {"nodes_modes": numpy_helper.from_array(np.array([0, 7, 6, 3], np.uint8))}),
    ]:
        attributes = {a.name: oh.get_attribute_value(a) for a in version.graph.node[0].attribute}
        node = oh.make_node("TreeEnsemble", ["X"], ["scores"], domain="ai.onnx.ml", **attributes | change)
        refuse(name, graph([node], SCORES, ml=5), "broken")
    nodes = [oh.make_node("Add", ["X", "X"], ["v0"])]
    nodes += [oh.make_node("Concat", [f"v{k}", f"v{k}"], [f"v{k + 1}"], axis=1) for k in range(60)]
    refuse("doubled_columns", graph(nodes, [("v60", TensorProto.FLOAT)]), "broken")


def refused():
    rows, targets = training()

    def convert(name, estimator, target, **options):
        refuse(name, to_onnx(estimator.fit(rows, target), rows[:1], **options))

    two, three, real = targets["two"], targets["three"], targets["real"]
    convert("adaboost", AdaBoostClassifier(n_estimators=2), two, options=NO_ZIP)
    convert("clip", make_pipeline(MinMaxScaler(clip=True), Ridge()), real)
    convert("sgd_three", SGDClassifier(loss="log_loss"), three, options=NO_ZIP)
    pair = np.stack([two, three], 1)
    forest = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=1)
    convert("forest_of_two_labels", forest, pair, options=NO_ZIP)
    stump, target, regressor = STUMP, TARGET, REGRESSOR
    for key, value in [
        ("aggregate_function", "MIN"),
        ("aggregate_function", "MAX"),
        ("post_transform", "PROBIT"),
        ("post_transform", "LOGISTIC"),
    ]:
        node = oh.make_node(
            "TreeEnsembleRegressor", ["X"], ["scores"], domain="ai.onnx.ml", **regressor, **{key: value}
        )
        refuse(f"regressor_{value.lower()}", graph([node], SCORES))
    labelled = stump | {f"class_{k.removeprefix('target_')}": v for k, v in target.items()}
    labelled |= {"class_weights": [0.2, 0.7], "classlabels_int64s": [0, 1]}
    for name, change in [
        ("classifier_second", {"class_ids": [1, 1]}),
        ("classifier_softmax_zero", {"class_ids": [0, 1], "post_transform": "SOFTMAX_ZERO"}),
        ("classifier_two_bases", {"class_ids": [0, 0], "base_values": [0.1, 0.2]}),
        ("infinite_threshold", {"nodes_values": [float(np.finfo(np.float32).max), 0.0, 0.0]}),
    ]:
        node = oh.make_node(
            "TreeEnsembleClassifier", ["X"], ["label", "scores"], domain="ai.onnx.ml", **labelled | change
        )
        refuse(name, graph([node], [("label", TensorProto.INT64)] + SCORES))
    normalizer = oh.make_node("Normalizer", ["X"], ["n"], domain="ai.onnx.ml", norm="L2")
    linear = oh.make_node(
        "LinearRegressor", ["n"], ["scores"], domain="ai.onnx.ml", coefficients=[1.0] * 5, intercepts=[0.0]
    )
    refuse("normalizer", graph([normalizer, linear], SCORES))


def main():
    for folder in ("refused", "broken"):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
    allow_numpy_integers()
    scikit_trees()
    scikit_linear()
    dataframe()
    boosting_libraries()
    doubles()
    by_hand()
    refused()
    broken()
    (HERE / "manifest.csv").write_text("\n".join(manifest) + "\n")


if __name__ == "__main__":
    main()
