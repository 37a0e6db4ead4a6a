#!/usr/bin/env python3
"""Train the example model of bulk scoring with XGBoost itself.

    pip install xgboost-cpu==3.2.0 scikit-learn==1.9.1
    python generate.py

`model.json` is what XGBoost saves, `training.csv` the rows that it was trained on, `rows.csv` the
rows that it was not trained on, `labels.csv` what they really are, and `clear.csv` what XGBoost
predicts for them.
"""

from pathlib import Path

import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier


def main() -> None:
    here = Path(__file__).parent
    data = load_breast_cancer()
    train, test, train_labels, labels = train_test_split(data.data, data.target, random_state=0)
    model = XGBClassifier(n_estimators=50, max_depth=4, random_state=0, n_jobs=1)
    model.fit(train, train_labels)
    columns = [column.replace(" ", "_") for column in data.feature_names]
    model.get_booster().feature_names = columns
    model.save_model(here / "model.json")

    def save(file: str, rows, header: list[str]) -> None:
        numpy.savetxt(
            here / file, rows, fmt="%.9g", delimiter=",", header=",".join(header), comments=""
        )

    save("training.csv", train, columns)
    save("rows.csv", test, columns)
    save("labels.csv", labels, ["label"])
    scores = model.predict_proba(test)
    save("clear.csv", scores, ["proba_0", "proba_1"])
    print(f"{len(test)} rows, accuracy {(scores.argmax(axis=1) == labels).mean():.3f}")


if __name__ == "__main__":
    main()
