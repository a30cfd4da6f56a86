"""Peers of the harness's test, in plain Python: one that does the work, record by record in double precision, and some that
must get no row. The right one is also the oracle of benchmarks/compare/ours.cpp."""
import array
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks/compare"))
import worker


def gradient(widths, weights, x, label):
    """Of one record's cross-entropy, in the parameters' order."""
    layers, at = [], 0
    for a, b in zip(widths, widths[1:]):
        layers.append((at, a, b))
        at += (a + 1) * b
    values = [list(x)]
    for k, (at, a, b) in enumerate(layers):
        z = [math.fsum(weights[at + o * a + i] * values[-1][i] for i in range(a)) + weights[at + a * b + o]
             for o in range(b)]
        values.append(z if k + 1 == len(layers) else [max(v, 0.0) for v in z])
    z = values[-1]
    if len(z) == 1:
        delta = [1 / (1 + math.exp(-z[0])) - label]
    else:
        total = math.fsum(math.exp(v - max(z)) for v in z)
        delta = [math.exp(v - max(z)) / total - (o == label) for o, v in enumerate(z)]
    out = [0.0] * len(weights)
    for k in reversed(range(len(layers))):
        at, a, b = layers[k]
        for o in range(b):
            for i in range(a):
                out[at + o * a + i] = delta[o] * values[k][i]
            out[at + a * b + o] = delta[o]
        if k:
            delta = [(values[k][i] > 0) * math.fsum(delta[o] * weights[at + o * a + i] for o in range(b)) for i in range(a)]
    return out


def clipped(g):
    norm = math.sqrt(math.fsum(v * v for v in g))
    return [v * min(1.0, 1.0 / norm) for v in g]


def add(vectors):
    return [math.fsum(column) for column in zip(*vectors)]


class right:
    deviation = 1.0

    def __init__(self, folder, widths, records, batch, threads, private, epoch, draws, output):
        self.widths, self.private, self.draws, self.output = [int(w) for w in widths.split("-")], private, draws, output
        load = lambda name, kind: array.array(kind, (Path(folder) / name).read_bytes())
        self.weights = load("weights.f32", "f")
        x, y, inputs = load("features.f32", "f"), load("labels.f32", "f"), self.widths[0]
        self.records = [(x[r * inputs : (r + 1) * inputs], y[r]) for r in load(f"rows-{batch}.u32", "I")[:batch]]

    def sum(self):
        each = [gradient(self.widths, self.weights, x, y) for x, y in self.records]
        return add(map(clipped, each)) if self.private else add(each)

    def check(self):
        total = self.sum()
        Path(self.output + ".sum.f32").write_bytes(array.array("f", total).tobytes())
        answer = {"sum": self.output + ".sum.f32"}
        if self.private:
            noise = array.array("f", (random.gauss(0, self.deviation) for _ in range(self.draws * len(total))))
            Path(self.output + ".noise.f32").write_bytes(noise.tobytes())
            answer["noise"] = self.output + ".noise.f32"
        return answer

    def repeat(self, n):
        time.sleep(0.01 * n)
        return 0.01 * n


class clips_the_mean(right):
    """What no claim about one record covers: the batch's mean gradient is clipped, not each record's."""

    def sum(self):
        n = len(self.records)
        mean = add([v / n for v in gradient(self.widths, self.weights, x, y)] for x, y in self.records)
        return [n * v for v in clipped(mean)]


class little_noise(right):
    deviation = 0.8


class crashes(right):
    def repeat(self, n):
        raise MemoryError("no room on this machine")


class hungry(right):
    def check(self):
        self.kept = bytearray(400 << 20)  # zeros, not yet there
        for i in range(0, len(self.kept), 4096):
            self.kept[i] = 1
        time.sleep(60)


class hangs(right):
    def repeat(self, n):
        time.sleep(600)


class answers:
    """Of the part accuracy: whatever it is told to answer."""

    def __init__(self, accuracy, rate, noise, steps):
        self.answer = {"accuracy": accuracy, "rate": rate, "noise": noise, "steps": steps}

    def __call__(self):
        return self.answer


if __name__ == "__main__":
    worker.serve(globals())
