"""Whole: from the shell prompt to a saved model with its epsilon: start, read the CSV, train, write.

The same network (64-64), epochs, batch, clip bound and optimizer (Adam, cosine decay from 0.005) at epsilon = 3; the
features are those of examples/pums.schema.json. Ours is examples/train_mlp; theirs are whole_opacus.py and
whole_jax.py, written as their tutorials do. Each finds its own noise and splits off its own test records, a fifth. Equal
work: epsilon at most 3 and at least 2.9, and an accuracy that is ours, less at most 0.01, or 4 standard errors if more.

An own file (--csv FILE) must have the columns of examples/pums.schema.json.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import reading
import worker

NAME = "whole"
ENVIRONMENTS = ("torch", "jax")
NOTES = {}
HERE = Path(__file__).resolve().parent
EPSILON = 3


def points(quick):
    records = 50_000 if quick else 1_200_000
    yield {"records": records, "threads": min(2, len(os.sched_getaffinity(0)))}


def unit(_point):
    return "s", 1


def place(point):
    return f"from the shell to a saved model, {point['threads']} threads", point.get("file", f"{point['records']:,} records")


def inputs(point, folder, options):
    if not options.csv:
        return reading.synthetic(folder, options.build, point["records"]), folder
    csv = Path(options.csv).resolve()
    with open(csv, "rb") as file:
        point["records"], point["file"] = sum(1 for _ in file) - 1, csv.name
    return csv, folder


def sides(point, inputs, options, tools):
    csv, folder = inputs
    big = point["records"] >= 500_000
    keys = {"csv": csv, "batch": 2048 if big else 512, "epochs": 6 if big else 3 if options.quick else 20,
            "threads": point["threads"], "delta": 10.0 ** -math.ceil(math.log10(point["records"] + 1))}

    def ours(name):
        own = {**keys, "build": Path(options.build).resolve(), "output": f"{folder}/{name}"}
        return [sys.executable, "-B", str(HERE / "whole.py"), "ours", *tools.words(own)]

    yield "ours again", [("ours", ours("ours")), ("theirs", ours("theirs"))]
    for name, environment, script in (("Opacus", "torch", "whole_opacus.py"), ("JAX-Privacy", "jax", "whole_jax.py")):
        theirs = tools.python(environment, "whole.py", "script", {**keys, "script": script, "output": f"{folder}/theirs"})
        yield name, [("ours", ours("ours")), ("theirs", theirs)]


def agree(_point, ours, theirs):
    theirs["accuracy_of_ours"] = ours["accuracy"]
    for who, answer in (("ours", ours), ("it", theirs)):
        if not 2.9 <= answer["epsilon"] <= EPSILON * (1 + 1e-6):
            return f"{who} spends epsilon {answer['epsilon']:.4g} where {EPSILON} is asked for"
    a = ours["accuracy"]
    allowed = max(0.01, 4 * math.sqrt(a * (1 - a) * (1 / ours["tested"] + 1 / theirs["tested"])))
    if theirs["accuracy"] < a - allowed:
        return f"its accuracy is {theirs['accuracy']:.4f} where ours is {a:.4f}; {allowed:.3f} less is allowed"
    return None


def run(command):
    """Runs a program whose last line of output is JSON."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{Path(command[0]).name} ended with status {done.returncode}")
    return done.stdout


class ours:
    """examples/train_mlp, as a user would start it; its ledger is a new one each time."""

    def __init__(self, csv, batch, epochs, threads, delta, build, output):
        self.words = [f"{build}/examples/train_mlp", "--csv", csv, "--schema", str(reading.ROOT / "examples/pums.schema.json"),
                      "--batch-size", str(batch), "--epochs", str(epochs), "--delta", str(delta), "--target-epsilon",
                      str(EPSILON), "--ranks", str(threads), "--save", f"{output}.model", "--json", "-"]

    def __call__(self):
        with tempfile.TemporaryDirectory() as folder:
            answer = json.loads(run([*self.words, "--ledger", f"{folder}/ledger"]))
        return {"epsilon": answer["epsilon"], "accuracy": answer["test_accuracy"], "tested": answer["test_positions"]}


class script:
    """A peer's script, started anew each time."""

    def __init__(self, script, **keys):
        self.words = [sys.executable, "-B", str(HERE / script), *(w for k, v in keys.items() for w in (f"--{k}", str(v)))]

    def __call__(self):
        return json.loads(run(self.words).splitlines()[-1])


if __name__ == "__main__":
    worker.serve(globals())
