"""Accuracy at equal epsilon: our best recipe, our defaults, Opacus as its example has it, and DP logistic regression.

A *cell* is a data set and an epsilon; delta is train_mlp's rule, the largest power of ten below 1 / records. In every repeat
(twice as many where records are few) another fifth of the file's rows, drawn by row number, is held back. All train on
the same rows of the other side and are tested on all that were held back, with the features of examples/pums.schema.json
that our reader writes down for them.

- ours, as advised: what `account --advise` says for the records, epsilon and delta; nothing is looked up in the data. The
  network (64-64) where it has no more parameters than advised, else a linear model.
- ours, defaults: train_mlp where nothing is said.
- Opacus: its example for census data (examples/adult_income.py of its repository): one hidden layer of 32, SGD at 0.15,
  batch 256, 10 epochs, clip 1, Poisson sampling. Its noise is what our accountant finds for that: by its own (PRV, within
  0.01) it would spend 0.04 of 0.05, and be less accurate for it.
- DP logistic regression: gradient descent from zero on all records, each one's gradient clipped to 1, 100 steps of Gaussian
  noise; the rate is 0.3 up to 5,000 records and 1 above: the best of 0.1 to 3 for it, on synthetic records of that many.

What each of them really did (its sampling rate, noise and steps) goes through our PLD accountant: an epsilon above the one
that is asked for, or more than 1 % below, is no row but a finding.
"""
import array
import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import reading
import worker

NAME = "accuracy"
ENVIRONMENTS = ("torch",)
NOTES = {}
HERE = Path(__file__).resolve().parent
SCHEMA = reading.ROOT / "examples/pums.schema.json"
SYNTHETIC = 200_000  # records: with 1.2 million Opacus would take most of an hour
FEW = 2_000
NETWORK = (64, 64)


def points(quick, csv=None):
    """csv: what --csv named; without it there is the synthetic census alone."""
    if quick:
        yield {"data": "synthetic", "rows": 4_000, "epsilon": 1}
        return
    for rows in (FEW, None) if csv else ():
        for epsilon in (0.05, 0.1, 0.2, 1):
            yield {"data": Path(csv).stem, "rows": rows, "epsilon": epsilon, "times": 2 if rows else 1}  # few: quick, noisy
    for epsilon in (0.1, 1):
        yield {"data": "synthetic", "rows": SYNTHETIC, "epsilon": epsilon}


def place(point):
    rows = f"first {point['rows']:,} rows" if point["rows"] else "all rows"
    return f"{point['data']}, {rows}", f"epsilon {point['epsilon']}"


def cut(csv, rows, repeat, folder):
    """train.csv, of the first rows alone, and test.csv: which is decided by the repeat and the row's number."""
    train, test = folder / "train.csv", folder / "test.csv"
    toss, kept = random.Random(repeat), 0
    with open(csv) as lines, open(train, "w") as to_train, open(test, "w") as to_test:
        header = next(lines)
        to_train.write(header), to_test.write(header)
        for number, line in enumerate(lines):
            if toss.random() < 0.2:
                to_test.write(line)
            elif rows is None or number < rows:
                to_train.write(line)
                kept += 1
    return train, test, kept


def inputs(point, repeat, folder, options, tools):
    """What all sides are told: the files and the promise."""
    csv = options.csv if point["data"] != "synthetic" else reading.synthetic(folder, options.build, point["rows"])
    where = Path(folder) / f"accuracy-{point['data']}-{point['rows']}-{repeat}"
    where.mkdir(parents=True, exist_ok=True)
    train, test, records = cut(csv, point["rows"], repeat, where)
    told = {"train": train, "test": test, "seed": repeat + 1, "epsilon": point["epsilon"], "delta": delta(records)}
    for name in ("train", "test"):
        keys = {"csv": told[name], "schema": SCHEMA, "threads": 1, "output": where / f"{name}.f32"}
        answer = ask(tools.ours("reading", keys))
        told[f"{name}_rows"], told["columns"] = answer["rows"], answer["columns"]
        told[f"{name}_floats"] = keys["output"]
    point["records"], point["delta"] = records, told["delta"]
    return told


def delta(records):
    """train_mlp's rule."""
    power = 1
    while power <= records:
        power *= 10
    return 1 / power


def sides(told, options, tools):
    own = {**told, "build": Path(options.build).resolve()}
    for name in ("advised", "defaults"):
        yield f"ours, {'as advised' if name == 'advised' else name}", [sys.executable, "-B", str(HERE / "accuracy.py"), name,
                                                                     *tools.words(own)]
    for name, function, how in (
        ("Opacus", "opacus", {"batch": 256, "epochs": 10, "learning_rate": 0.15}),
        ("DP logistic regression", "logistic", {"batch": told["train_rows"], "epochs": 100,
                                                "learning_rate": 0.3 if told["train_rows"] <= 5000 else 1}),
    ):
        a_round = math.ceil(told["train_rows"] / how["batch"])  # the steps of an epoch, as Opacus counts them
        keys = {"accountant": "pld", "rate": 1 / a_round, "steps": a_round * how["epochs"], "delta": told["delta"]}
        noise = ask(tools.ours("accounting", {**keys, "target": told["epsilon"]}))["value"]
        yield name, tools.python("torch", "accuracy_peers.py", function, {**told, **how, "noise": noise})


def judge(point, answer, tools):
    """What is wrong with what it spent, in words, or None; the answer gets its epsilon by our accountant."""
    keys = {"accountant": "pld", **{k: answer[k] for k in ("rate", "noise", "steps")}, "delta": point["delta"]}
    answer["epsilon"] = ask(tools.ours("accounting", keys))["value"]
    if not 0.99 * point["epsilon"] <= answer["epsilon"] <= 1.001 * point["epsilon"]:
        return f"it spends epsilon {answer['epsilon']:.4g} where {point['epsilon']} is asked for"
    if not 0 <= answer["accuracy"] <= 1:
        return f"its accuracy is {answer['accuracy']}"
    return None


def ask(command):
    done = subprocess.run(command, input="check\n", stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


# ---- Our side ----


def run(*command):
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout


class defaults:
    """train_mlp where nothing is said but the promise."""

    def __init__(self, build, train, test, train_rows, test_rows, train_floats, test_floats, columns, seed, epsilon, delta):
        self.build, self.train, self.test, self.seed, self.epsilon, self.delta = build, train, test, seed, epsilon, delta
        self.columns = columns
        floats = array.array("f", Path(test_floats).read_bytes())
        self.labels = floats[test_rows * columns :]
        self.floats = train_rows * (columns + 1)

    def words(self):
        return []

    def __call__(self):
        with tempfile.TemporaryDirectory() as folder:
            done = json.loads(run(
                f"{self.build}/examples/train_mlp", "--csv", self.train, "--schema", SCHEMA, "--drop-bad-rows", "--test-fraction",
                0, "--seed", self.seed, "--target-epsilon", self.epsilon, "--delta", self.delta, "--ledger", f"{folder}/ledger",
                "--save", f"{folder}/model", "--json", "-", *self.words()))
            said = run(f"{self.build}/examples/predict", "--model", f"{folder}/model", "--schema", SCHEMA, "--csv", self.test,
                       "--drop-bad-rows").splitlines()[1:]
        said = [float(line.split(",")[1]) for line in said if not line.startswith("NA")]
        assert len(said) == len(self.labels), f"{len(said)} predictions for {len(self.labels)} rows"
        right = sum((p > 0.5) == (y > 0.5) for p, y in zip(said, self.labels))
        how = done["settings"]
        return {"accuracy": right / len(said), "rate": how["sampling_rate"], "noise": how["noise_multiplier"],
                "steps": done["steps"], "how": "-".join(map(str, how["hidden"])) or "linear"}


class advised(defaults):
    """What account --advise says."""

    def words(self):
        with open(self.train) as lines:
            records = sum(1 for _ in lines) - 1
        said = json.loads(run(f"{self.build}/examples/account", "--advise", "--records", records, "--target-epsilon",
                              self.epsilon, "--delta", self.delta, "--json"))
        widths = [self.columns, *NETWORK, 1]
        network = sum((a + 1) * b for a, b in zip(widths, widths[1:])) <= said["parameters_at_most"]
        model = ["--average", "tail"] if network else ["--hidden", 0]
        return [*model, "--batch-size", said["advised"]["batch_size"], "--steps", said["advised"]["steps"],
                "--optimizer", said["optimizer"], "--schedule", said["schedule"],
                "--learning-rate", said["learning_rate"]["network" if network else "linear"]]


# ---- The tables ----


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    return (sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else float("nan")


class Table:
    """One data set: sides down, epsilons across."""

    def __init__(self, title, rows):
        self.title, self.problems = title, []
        self.columns = list(dict.fromkeys(place(r["point"])[1] for r in rows))
        self.found = {}  # (side, column) -> {repeat: answer}
        for r in rows:
            column = place(r["point"])[1]
            if r["status"] == "answered":
                self.found.setdefault((r["peer"], column), {})[r["repeat"]] = r["answer"]
            elif r["status"] in ("not run", "disagrees"):
                self.problems.append(f"{r['peer']}, {column}: {r['status']}: {r['why']}")
        self.sides = list(dict.fromkeys(side for side, _ in self.found))

    def cell(self, side, column):
        mine, ours = self.found.get((side, column)), self.found.get((self.sides[0], column), {})
        if not mine:
            return ""
        values = [100 * a["accuracy"] for a in mine.values()]
        text = f"{mean(values):.2f} ± {deviation(values):.2f}"
        off = [100 * (ours[k]["accuracy"] - a["accuracy"]) for k, a in mine.items() if k in ours]
        if side != self.sides[0] and len(off) > 1:
            error = deviation(off) / len(off) ** 0.5
            mark = "" if mean(off) > error else " =" if mean(off) >= -error else " **loss**"
            text += f" · {mean(off):+.2f} ± {error:.2f}{mark}"
        return text

    def how(self, side, column):
        answers = list(self.found.get((side, column), {}).values())
        if not answers:
            return ""
        a, epsilons = answers[0], [x["epsilon"] for x in answers]
        return f"{a.get('how', '')} q {a['rate']:.3g}, z {a['noise']:.4g}, T {a['steps']}: {max(epsilons):.4g}".strip()

    def grids(self):
        yield [["accuracy, % ± deviation · ours, as advised, less it ± standard error", *self.columns],
               *([side, *(self.cell(side, c) for c in self.columns)] for side in self.sides)]
        yield [["rate, noise, steps: their epsilon by our PLD accountant", *self.columns],
               *([side, *(self.how(side, c) for c in self.columns)] for side in self.sides)]


def tables(rows):
    grouped = {}
    for r in rows:
        grouped.setdefault(place(r["point"])[0], []).append(r)
    made = []
    for title, group in grouped.items():
        point = group[0]["point"]
        repeats = 1 + max(r["repeat"] for r in group)
        made.append(Table(f"{title}: about {point['records']:,} to train on, delta {point['delta']:g}; {repeats} repeats", group))
    return made


if __name__ == "__main__":
    worker.serve(globals())
