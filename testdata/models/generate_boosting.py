"""Models of XGBoost and LightGBM, see README.md. Run once in each of three environments: what is
written depends on the version of XGBoost that is installed.
"""

import json
import warnings

import numpy as np
import pandas as pd
import xgboost as xgb

from common import HERE, folder, neighbours, rows_around, write_answers

warnings.filterwarnings("ignore")
VERSION = xgb.__version__.split(".")[0]
SAMPLES = 300
# For models in which every threshold matters, and for models that differ in what follows.
MANY, FEW = 60, 12


def data(seed=0):
    """Three features, the last one categories 0 to 5; the second one with missing values."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(SAMPLES, 3)), 2)
    x[:, 2] = rng.integers(0, 6, SAMPLES)
    signal = x[:, 0] + np.abs(x[:, 1]) + np.isin(x[:, 2], [1, 3, 4]) * 1.5
    x[rng.random(SAMPLES) < 0.2, 1] = np.nan
    return x, signal + rng.normal(scale=0.1, size=SAMPLES), rng


X, SIGNAL, RNG = data()
BINARY = (SIGNAL > np.median(SIGNAL)).astype(int)
CLASSES = np.digitize(SIGNAL, np.quantile(SIGNAL, [0.3, 0.7]))
COUNTS = np.floor(np.exp(SIGNAL / 2))
POSITIVE = np.exp(SIGNAL / 2)


# XGBoost


def xgb_leaf_ranks(tree):
    """From XGBoost's ids of leaves to their positions from left to right."""
    ranks, open_nodes = {}, [0]
    while open_nodes:
        node = open_nodes.pop()
        if tree["left_children"][node] == -1:
            ranks[node] = len(ranks)
        else:
            open_nodes += [tree["right_children"][node], tree["left_children"][node]]
    return ranks


def xgb_trees(path):
    booster = json.loads(path.read_text())["learner"]["gradient_booster"]
    return booster.get("gbtree", booster)["model"].get("trees", [])


def xgb_special(trees):
    special = {}
    for tree in trees:
        for node, left in enumerate(tree["left_children"]):
            if left == -1:
                continue
            values = special.setdefault(tree["split_indices"][node], [])
            if tree["split_type"][node]:
                values += [0, 1, 2, 3, 4, 5, 6, 31, 32, 70, 1.5, 2.999999999, -1, -0.5, 16777216]
            else:
                values += neighbours(tree["split_conditions"][node], np.float32)
    return special


def xgb_case(case, booster, scores, count=FEW, formats=("json",), types=None, rows=None, last=0):
    """`scores` gives the scores of a DMatrix and its rows; `last` is the end of the rounds in use."""
    path = folder(case)
    for suffix in formats:
        booster.save_model(path / f"model.{suffix}")
    if "json" not in formats:
        booster.save_model(path / "model.json")
    trees = xgb_trees(path / "model.json")
    if rows is None:
        special = xgb_special(trees) if trees else {}
        rows = rows_around(X[:, : booster.num_features()], special, count, RNG)
    if not trees:
        rows = rows[~np.isnan(rows).any(axis=1)]
    matrix = xgb.DMatrix(rows, feature_types=types, enable_categorical=types is not None)
    matrix.feature_names = booster.feature_names
    leaves = np.zeros((len(rows), 0))
    if trees:
        leaves = booster.predict(matrix, pred_leaf=True, iteration_range=(0, last))
        leaves = leaves.reshape(len(rows), -1).astype(int)
        ranks = [xgb_leaf_ranks(tree) for tree in trees]
        leaves = [[ranks[tree][leaf] for tree, leaf in enumerate(row)] for row in leaves]
    names = booster.feature_names or [f"f{feature}" for feature in range(rows.shape[1])]
    write_answers(path, names, rows, leaves, scores(matrix, rows))


def predicted(booster, last=0):
    return lambda matrix, rows: booster.predict(matrix, iteration_range=(0, last))


def both_classes(booster):
    """What the classifier's `predict_proba` makes of the booster's probability."""

    def scores(matrix, rows):
        positive = booster.predict(matrix)
        return np.stack([1 - positive, positive], axis=1)

    return scores


def train(target, rounds=2, types=None, features=3, **parameters):
    settings = dict(max_depth=2, nthread=1, seed=1)
    matrix = xgb.DMatrix(X[:, :features], target, feature_types=types, enable_categorical=types is not None)
    matrix.set_float_info("label_lower_bound", np.ravel(target)[:SAMPLES])
    matrix.set_float_info("label_upper_bound", np.ravel(target)[:SAMPLES])
    return xgb.train(settings | parameters, matrix, rounds)


CATEGORICAL = ["q", "q", "c"]
BOTH = ("json", "ubj")


def xgb_objectives(prefix, objectives):
    for name, (objective, target, more) in objectives.items():
        booster = train(target, features=2, objective=objective, **more)
        xgb_case(f"{prefix}_{name}", booster, predicted(booster))


def xgb_three():
    booster = train(BINARY, 3, max_depth=3, objective="binary:logistic")
    xgb_case("xgb_binary", booster, both_classes(booster), MANY, BOTH)
    booster = train(CLASSES, objective="multi:softprob", num_class=3)
    xgb_case("xgb_multiclass", booster, predicted(booster), MANY)
    booster = train(SIGNAL, 3, max_depth=3, types=CATEGORICAL, max_cat_to_onehot=1, tree_method="hist")
    xgb_case("xgb_categorical", booster, predicted(booster), MANY, BOTH, CATEGORICAL)
    booster = train(SIGNAL, 3, types=CATEGORICAL, max_cat_to_onehot=9, tree_method="hist")
    xgb_case("xgb_onehot", booster, predicted(booster), MANY, types=CATEGORICAL)
    booster = train(SIGNAL, 4, booster="dart", rate_drop=0.5, skip_drop=0.0)
    xgb_case("xgb_dart", booster, predicted(booster), MANY, BOTH)
    booster = train(CLASSES, objective="multi:softprob", num_class=3, num_parallel_tree=2, subsample=0.5)
    xgb_case("xgb_forest", booster, predicted(booster))
    booster = train(BINARY, 3, tree_method="exact", max_depth=4, gamma=12.0, objective="binary:logistic")
    xgb_case("xgb_pruned", booster, both_classes(booster), MANY)
    assert any(tree["tree_param"]["num_deleted"] != "0" for tree in xgb_trees(HERE / "xgb_pruned/model.json"))
    booster = train(SIGNAL, gamma=1e9, features=2)
    xgb_case("xgb_constant", booster, predicted(booster))
    booster = train(CLASSES, objective="multi:softprob", num_class=3, booster="gblinear")
    xgb_case("xgb_linear", booster, predicted(booster), formats=BOTH)
    targets = np.stack([SIGNAL, -X[:, 0]], axis=1)
    booster = train(targets, multi_strategy="multi_output_tree", tree_method="hist")
    xgb_case("xgb_vectors", booster, predicted(booster), MANY, BOTH)
    booster = train(targets)
    xgb_case("xgb_targets", booster, predicted(booster))
    booster = train(targets > 0.5, objective="binary:logistic")
    xgb_case("xgb_multilabel", booster, predicted(booster))
    xgb_sklearn()
    xgb_objectives(
        "xgb",
        {
            "absolute": ("reg:absoluteerror", SIGNAL, {}),
            "aft": ("survival:aft", POSITIVE, {}),
            "cox": ("survival:cox", POSITIVE, {}),
            "gamma": ("reg:gamma", POSITIVE, {}),
            "logistic": ("reg:logistic", BINARY, {}),
            "logitraw": ("binary:logitraw", BINARY, {}),
            "poisson": ("count:poisson", COUNTS, {}),
            "pseudohuber": ("reg:pseudohubererror", SIGNAL, {}),
            "quantiles": ("reg:quantileerror", SIGNAL, {"quantile_alpha": [0.2, 0.8]}),
            "rank": ("rank:pairwise", BINARY, {}),
            "squaredlog": ("reg:squaredlogerror", POSITIVE, {}),
            "tweedie": ("reg:tweedie", COUNTS, {}),
        },
    )
    refused = HERE / "refused"
    train(BINARY, objective="binary:hinge").save_model(refused / "xgb_hinge.json")
    frame = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(X[:, 2].astype(int) * 10)})
    model = xgb.XGBRegressor(n_estimators=1, max_depth=1, enable_categorical=True).fit(frame, SIGNAL)
    model.save_model(refused / "xgb_category_numbers.json")


def xgb_sklearn():
    """Models that stopped early, and of data frames."""
    settings = dict(n_estimators=9, max_depth=1, learning_rate=1.0, n_jobs=1, early_stopping_rounds=1)
    model = xgb.XGBClassifier(objective="multi:softmax", **settings)
    model.fit(X[:200], CLASSES[:200], eval_set=[(X[200:], RNG.permutation(CLASSES[200:]))], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    last = model.best_iteration + 1
    xgb_case("xgb_early_stopping", model.get_booster(), lambda _, rows: model.predict_proba(rows), last=last)
    frame = pd.DataFrame({"size": X[:, 0], "colour": pd.Categorical(np.array(list("abcdef"))[X[:, 2].astype(int)])})
    model = xgb.XGBRegressor(n_estimators=2, max_depth=2, enable_categorical=True, max_cat_to_onehot=1)
    booster = model.fit(frame, SIGNAL).get_booster()
    rows = np.array([[size, code] for size in (-0.5, 2.0, np.nan) for code in (0, 1, 2, 3, 4, 5, 9, np.nan)])
    xgb_case("xgb_frame", booster, predicted(booster), types=["q", "c"], rows=rows)


def xgb_two():
    booster = train(BINARY, 3, max_depth=3, objective="binary:logistic")
    xgb_case("xgb2_binary", booster, both_classes(booster), MANY)
    booster = train(SIGNAL, types=CATEGORICAL, max_cat_to_onehot=1, tree_method="hist")
    xgb_case("xgb2_categorical", booster, predicted(booster), MANY, BOTH, CATEGORICAL)
    targets = np.stack([SIGNAL, -X[:, 0]], axis=1)
    booster = train(targets, multi_strategy="multi_output_tree", tree_method="hist")
    xgb_case("xgb2_vectors", booster, predicted(booster), FEW, BOTH)
    xgb_objectives("xgb2", {"poisson": ("count:poisson", COUNTS, {}), "gamma": ("reg:gamma", POSITIVE, {})})


def xgb_one():
    booster = train(BINARY, 3, max_depth=3, objective="binary:logistic", base_score=0.3)
    xgb_case("xgb1_binary", booster, both_classes(booster), MANY)
    booster = train(SIGNAL, types=CATEGORICAL, max_cat_to_onehot=1, tree_method="hist")
    xgb_case("xgb1_categorical", booster, predicted(booster), MANY, BOTH, CATEGORICAL)
    xgb_objectives(
        "xgb1",
        {
            "logitraw": ("binary:logitraw", BINARY, {"base_score": 0.3}),
            "multiclass": ("multi:softprob", CLASSES, {"num_class": 3}),
            "poisson": ("count:poisson", COUNTS, {"base_score": 2.0}),
            "squared": ("reg:squarederror", SIGNAL, {"base_score": 2.0}),
        },
    )


# LightGBM


def lgb_leaf_ranks(structure):
    """From LightGBM's ids of leaves to their positions from left to right, and its thresholds."""
    ranks, special, open_nodes = {}, {}, [structure]
    while open_nodes:
        node = open_nodes.pop()
        if "split_index" not in node:
            ranks[node.get("leaf_index", 0)] = len(ranks)
            continue
        values = special.setdefault(node["split_feature"], [])
        if node["decision_type"] == "==":
            values += [0, 1, 2, 3, 4, 5, 6, 31, 32, 70, 1.5, 2.999999999, -1, -0.5, -0.999]
        else:
            zero = float(np.float32(1e-35))
            values += neighbours(node["threshold"], np.float64) + [0.0, -0.0, np.inf, -np.inf, 1e300]
            values += neighbours(zero, np.float64) + neighbours(-zero, np.float64)
        open_nodes += [node["right_child"], node["left_child"]]
    return ranks, special


def lgb_save(booster, path):
    """Without the training parameters, which are most of the file and no part of the model."""
    text = booster.model_to_string()
    start, end = text.index("parameters:\n"), text.index("end of parameters\n")
    path.write_text(text[:start] + "parameters:\n" + text[end:])


def lgb_case(case, booster, scores=None, count=FEW, rows=None):
    path = folder(case)
    lgb_save(booster, path / "model.txt")
    trees = [lgb_leaf_ranks(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
    if rows is None:
        special = {}
        for _, found in trees:
            for feature, values in found.items():
                special.setdefault(feature, []).extend(values)
        rows = rows_around(X[:, : booster.num_feature()], special, count, RNG)
    leaves = booster.predict(rows, pred_leaf=True).reshape(len(rows), -1).astype(int)
    leaves = [[trees[tree][0][leaf] for tree, leaf in enumerate(row)] for row in leaves]
    write_answers(path, booster.feature_name(), rows, leaves, scores(rows) if scores else booster.predict(rows))


def lgb_train(target, rounds=2, features=3, categorical=(), x=X, group=None, **parameters):
    import lightgbm as lgb

    settings = dict(num_leaves=5, min_data_in_leaf=5, verbose=-1, num_threads=1, seed=1, deterministic=True)
    settings |= dict(min_data_per_group=1, cat_smooth=1.0, max_cat_to_onehot=1)
    settings |= parameters
    matrix = lgb.Dataset(
        x[:, :features], target, categorical_feature=list(categorical), group=group, params=settings
    )
    return lgb.train(settings, matrix, rounds)


def lgb_all():
    def both(booster):
        return lambda rows: np.stack([1 - booster.predict(rows), booster.predict(rows)], axis=1)

    booster = lgb_train(BINARY, 3, objective="binary")
    lgb_case("lgb_binary", booster, both(booster), MANY)
    booster = lgb_train(BINARY, features=2, objective="binary", sigmoid=2.5)
    lgb_case("lgb_sigmoid", booster, both(booster))
    lgb_case("lgb_multiclass", lgb_train(CLASSES, objective="multiclass", num_class=3), count=MANY)
    lgb_case("lgb_one_vs_all", lgb_train(CLASSES, objective="multiclassova", num_class=3, sigmoid=0.5))
    lgb_case("lgb_categorical", lgb_train(SIGNAL, 3, categorical=[2], objective="regression"), count=MANY)
    # Zeros, and numbers that are zero to LightGBM, on both sides of the thresholds.
    around_zero = np.where(np.abs(X) < 0.3, 0.0, X)
    target = SIGNAL + (around_zero[:, 0] == 0) * 3
    zeros = dict(x=around_zero, objective="regression")
    lgb_case("lgb_zeros", lgb_train(target, 3, **zeros), count=MANY)
    lgb_case("lgb_zero_missing", lgb_train(target, 3, zero_as_missing=True, **zeros), count=MANY)
    lgb_case("lgb_no_missing", lgb_train(target, 3, use_missing=False, **zeros), count=MANY)
    forest = dict(boosting="rf", bagging_fraction=0.5, bagging_freq=1)
    booster = lgb_train(BINARY, 3, objective="binary", **forest)
    lgb_case("lgb_forest", booster, both(booster))
    lgb_case("lgb_dart", lgb_train(SIGNAL, 4, features=2, boosting="dart", drop_rate=0.9))
    lgb_case("lgb_constant", lgb_train(SIGNAL, features=2, min_gain_to_split=1e9))
    frame = pd.DataFrame({"size": X[:, 0], "colour": pd.Categorical(np.array(list("abcdef"))[X[:, 2].astype(int)])})
    lgb_frames(frame)
    lgb_objectives()
    # Category 0 goes left, and with it what loses its digits to 0.
    falling = lgb_train(-SIGNAL, 3, categorical=[2], objective="regression")
    lgb_case("lgb_category_zero", falling, count=MANY)


def lgb_objectives():
    groups = [SAMPLES // 10] * 10
    objectives = {
        "cross_entropy": (BINARY, {}),
        "cross_entropy_lambda": (BINARY, {}),
        "fair": (SIGNAL, {}),
        "gamma": (POSITIVE, {}),
        "huber": (SIGNAL, {}),
        "lambdarank": (CLASSES, {"group": groups}),
        "mape": (POSITIVE, {}),
        "poisson": (COUNTS, {}),
        "quantile": (SIGNAL, {"alpha": 0.7}),
        "rank_xendcg": (CLASSES, {"group": groups}),
        "regression_l1": (SIGNAL, {}),
        "tweedie": (COUNTS, {}),
    }
    for name, (target, more) in objectives.items():
        lgb_case(f"lgb_{name}", lgb_train(target, features=2, objective=name, **more))
    lgb_case("lgb_sqrt", lgb_train(SIGNAL * 9, features=2, objective="regression", reg_sqrt=True))
    own = lambda predicted, matrix: (predicted - matrix.get_label(), np.ones(len(predicted)))
    lgb_case("lgb_own_objective", lgb_train(SIGNAL, features=2, objective=own))


def lgb_frames(frame):
    """Data frames with categories, and models that are refused."""
    import lightgbm as lgb

    settings = dict(n_estimators=2, num_leaves=4, verbose=-1, n_jobs=1, min_data_per_group=1, cat_smooth=1.0, max_cat_to_onehot=1)
    model = lgb.LGBMRegressor(**settings).fit(frame, SIGNAL)
    rows = np.array([[size, code] for size in (-0.5, 2.0, np.nan) for code in (0, 1, 2, 3, 4, 5, 9, np.nan)])
    scores = lambda rows: model.booster_.predict(rows, validate_features=False)
    lgb_case("lgb_frame", model.booster_, scores, rows=rows)
    refused = HERE / "refused"
    numbers = frame.assign(colour=pd.Categorical(X[:, 2].astype(int) * 10))
    lgb_save(lgb.LGBMRegressor(**settings).fit(numbers, SIGNAL).booster_, refused / "lgb_category_numbers.txt")
    lgb_save(lgb_train(SIGNAL, features=2, linear_tree=True), refused / "lgb_linear_tree.txt")


if __name__ == "__main__":
    (HERE / "refused").mkdir(exist_ok=True)
    if VERSION == "3":
        xgb_three()
        lgb_all()
    elif VERSION == "2":
        xgb_two()
    else:
        xgb_one()
