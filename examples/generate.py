#!/usr/bin/env python3
"""Make the example models of Concrete ML. `breast_cancer_xgboost` has a generator of its own.

    pip install concrete-ml==1.9.0             # Python 3.11
    python generate.py ../target/release/cipherscore

Each folder gets what a model owner and a data owner have: `client.zip`, an imported `server.zip`
(portable: no machine code), `rows.csv` (the rows that the model was not trained on), `labels.csv`
(what they really are) and `clear.csv` (what Concrete ML predicts without encryption).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from sklearn import datasets
from sklearn.model_selection import train_test_split

from concrete.ml.deployment import FHEModelDev
from concrete.ml.sklearn import DecisionTreeClassifier, LogisticRegression

EXAMPLES = {
    "iris_decision_tree": (
        datasets.load_iris,
        DecisionTreeClassifier(max_depth=3, random_state=0),
    ),
    "breast_cancer_logistic_regression": (
        datasets.load_breast_cancer,
        LogisticRegression(n_bits=8),
    ),
}


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    here = Path(__file__).parent
    for name, (load, model) in EXAMPLES.items():
        data = load()
        train, test, train_labels, labels = train_test_split(
            data.data, data.target, random_state=0
        )
        model.fit(train, train_labels)
        model.compile(train)
        folder = here / name
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as saved:
            FHEModelDev(saved, model).save(via_mlir=False)
            (folder / "client.zip").write_bytes((Path(saved) / "client.zip").read_bytes())
            command = [program, "import", Path(saved) / "server.zip"]
            subprocess.run([*command, "--output", folder / "server.zip"], check=True)
        columns = [column.replace(" (cm)", "").replace(" ", "_") for column in data.feature_names]
        save = lambda file, rows, header: numpy.savetxt(
            folder / file, rows, fmt="%.17g", delimiter=",", header=header, comments=""
        )
        save("rows.csv", test, ",".join(columns))
        save("labels.csv", labels, "label")
        scores = model.predict_proba(test, fhe="disable")
        save("clear.csv", scores, ",".join(f"proba_{i}" for i in range(scores.shape[1])))
        accuracy = (scores.argmax(axis=1) == labels).mean()
        print(f"{name}: {len(test)} rows, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
