"""What the scripts of whole.py share: their options, and the CSV as the features of examples/pums.schema.json."""
import argparse
import json
from pathlib import Path

import numpy as np
import pandas

SCHEMA = Path(__file__).resolve().parent.parent.parent / "examples/pums.schema.json"


def options():
    parser = argparse.ArgumentParser()
    for name, kind in {"csv": str, "batch": int, "epochs": int, "threads": int, "delta": float, "output": str}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args()


def read(csv):
    """features (rows, width), labels; float32, four fifths to train on and the rest to test: two pairs."""
    columns = json.loads(SCHEMA.read_text())["columns"]
    label = next(c["name"] for c in columns if c["kind"] == "label")
    columns = [c for c in columns if c["kind"] != "label"]
    table = pandas.read_csv(csv, usecols=[label, *(c["name"] for c in columns)])
    features = []
    for c in columns:
        v = table[c["name"]].fillna(c["default"]).to_numpy(np.float64)
        least, most = c.get("min", 0), c.get("max", 1)
        bend = (lambda x: np.sign(x) * np.log1p(np.abs(x))) if c.get("scale") == "signed_log" else (lambda x: x)
        laid = lambda x: 2 * (bend(x) - bend(least)) / (bend(most) - bend(least)) - 1
        s = laid(np.clip(v, least, most))
        edges = [-1, *(laid(cut) for cut in c.get("cuts", [])), 1]
        for low, high in zip(edges, edges[1:]):  # straight between cuts
            features.append(np.clip(2 * (s - low) / (high - low) - 1, -1, 1).astype(np.float32))
    x, y = np.stack(features, axis=1), table[label].to_numpy(np.float32)
    test = np.random.default_rng(1).random(len(x)) < 0.2
    return (x[~test], y[~test]), (x[test], y[test])
