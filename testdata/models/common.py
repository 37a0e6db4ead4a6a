"""Folders of reference data: a model file, rows, and what the library that wrote it says of them.

rows.csv    names of the features, then rows; a missing value is an empty field
leaves.csv  for each row and tree the leaf that is reached, counted from left to right
scores.csv  for each row what the library predicts
"""

import csv
import pathlib
import shutil

import numpy as np

HERE = pathlib.Path(__file__).parent


def folder(case):
    """An empty folder for a case."""
    path = HERE / case
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def number(value):
    """The shortest text that reads as the same number of the same precision."""
    if isinstance(value, (int, np.integer)):
        return str(value)
    if np.isnan(value):
        return ""
    return str(value).removesuffix(".0")


def write_csv(path, table, header=None):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if header is not None:
            writer.writerow(header)
        writer.writerows([number(value) for value in row] for row in table)


def write_answers(path, names, rows, leaves, scores):
    """Rows as float64, leaves as integers, scores as the library gives them."""
    scores = np.asarray(scores)
    write_csv(path / "rows.csv", np.asarray(rows, dtype=float), names)
    write_csv(path / "leaves.csv", np.asarray(leaves, dtype=int).reshape(len(rows), -1))
    write_csv(path / "scores.csv", scores.reshape(len(rows), -1))


def neighbours(threshold, precision):
    """A threshold, the numbers next to it, and what only rounding tells from it."""
    exact = precision(threshold)
    nearby = [exact, np.nextafter(exact, precision(-np.inf)), np.nextafter(exact, precision(np.inf))]
    wide = np.float64(exact)
    return [float(value) for value in nearby] + [np.nextafter(wide, -np.inf), np.nextafter(wide, np.inf)]


def rows_around(plain, special, count, rng):
    """Plain rows with one value each replaced by a special one of its feature; and missing values."""
    rows = [np.array(plain[position % len(plain)], dtype=float) for position in range(count)]
    choices = [(feature, value) for feature, values in special.items() for value in sorted(set(values))]
    rng.shuffle(choices)
    width = len(rows[0])
    choices = [(feature, np.nan) for feature in range(width)] + choices
    for row, (feature, value) in zip(rows, choices):
        row[int(feature)] = value
    rows[-1][:] = np.nan
    return np.array(rows)
