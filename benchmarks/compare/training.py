"""Training: one step, and an epoch, of DP-SGD and of SGD on the same weights, records and batches.

The step is bare: the data lie in memory, the batch's row numbers are given, what is timed is gather, gradient, clip,
noise and plain SGD. The epoch is as the peer's own tutorial writes it, with its sampler and loader.

Proof of equal work, by the very step that is timed: with learning rate B a step of batch B moves the weights by the
(clipped) sum of gradients. Without noise it must be ours within 1e-5, relative, in the 2-norm. With noise multiplier 1
and clip bound 1 the difference is the noise: its mean and variance over n draws must lie within 6 standard errors
(6/sqrt(n), and 6 sqrt(2/n) of 1). A right peer fails that with probability below 1e-8.
"""
import array
import math
import random
from pathlib import Path

NAME = "training"
RECORDS = {"16-64-64-1": 65536, "64-256-256-10": 16384}  # an epoch's; of the wide network fewer, so that a run ends
CLIP = NOISE = 1.0

# name, environment, file, function, private, kinds
PEERS = [
    ("PyTorch, not private", "torch", "training_torch.py", "plain", False),
    ("PyTorch compiled, not private", "torch", "training_torch.py", "compiled", False),
    ("JAX, not private", "jax", "training_jax.py", "plain", False),
    ("Opacus, hooks", "torch", "training_torch.py", "hooks", True),
    ("Opacus, ghost", "torch", "training_torch.py", "ghost", True),
    ("JAX by hand", "jax", "training_jax.py", "by_hand", True),
    ("JAX-Privacy", "jax", "training_jax.py", "jax_privacy", True),
    ("JAX-Privacy, micro-batches of 256", "jax", "training_jax.py", "jax_privacy_micro", True),
    ("the original's way", "torch", "training_torch.py", "original", True),
]
ENVIRONMENTS = ("torch", "jax")
NOTES = {
    "the original's way": "is other work: micro-batches of 3 share one clip, so its noise protects less than one record's "
    "clip would. Its step with micro-batches of 1 is the same work, which is what was proved."
}


def points(quick):
    for kind in ("step", "epoch"):
        for widths in list(RECORDS)[:1] if quick else RECORDS:
            for threads in (1,) if quick else (1, 2):
                for batch in (256, 4096) if quick else (256, 1024, 4096, 16384):
                    yield {"kind": kind, "widths": widths, "records": RECORDS[widths], "threads": threads, "batch": batch}


def unit(point):
    return ("us a step", 1e6) if point["kind"] == "step" else ("ms an epoch", 1e3)


def place(point):
    """Which table and which column of it a point stands in."""
    epoch = f"an epoch of {point['records']:,} records, with sampler and loader"
    what = "the bare step" if point["kind"] == "step" else epoch
    threads = "1 thread" if point["threads"] == 1 else f"{point['threads']} threads"
    return f"{what}, {point['widths']}, {threads}", f"batch {point['batch']}"


def inputs(point, folder, _options):
    """Writes weights, records and batches where they are not there yet; the folder's name."""
    widths = [int(w) for w in point["widths"].split("-")]
    records = point["records"]
    where = Path(folder) / f"{point['widths']}-{records}"
    where.mkdir(parents=True, exist_ok=True)

    def write(name, kind, make):
        if not (where / name).exists():
            (where / "unfinished").write_bytes(array.array(kind, make()).tobytes())
            (where / "unfinished").rename(where / name)

    def weights():
        draw = random.Random(1)
        for fan_in, fan_out in zip(widths, widths[1:]):
            bound = math.sqrt(6 / fan_in)
            for _ in range(fan_in * fan_out):
                yield draw.uniform(-bound, bound)
            for _ in range(fan_out):
                yield draw.uniform(-0.1, 0.1)

    def features():
        draw = random.Random(2)
        return (2 * draw.random() - 1 for _ in range(records * widths[0]))

    def labels():
        x = array.array("f", (where / "features.f32").read_bytes())
        for i in range(records):
            row = x[i * widths[0] : (i + 1) * widths[0]]
            if widths[-1] == 1:
                yield 1.0 if sum(row[::2]) > sum(row[1::2]) else 0.0
            else:
                yield float(max(range(widths[-1]), key=lambda c: row[c]))

    def rows():
        draw = random.Random(3)
        for _ in range(4):
            yield from sorted(draw.sample(range(records), point["batch"]))

    write("weights.f32", "f", weights)
    write("features.f32", "f", features)
    write("labels.f32", "f", labels)
    write(f"rows-{point['batch']}.u32", "I", rows)
    return where


def sides(point, folder, options, tools):
    """For each peer the processes that run in turn: ours, first the one whose answer is compared, and theirs."""

    def keys(private, output):
        size = sum((a + 1) * b for a, b in zip(widths, widths[1:]))
        return {
            "folder": folder, "widths": point["widths"], "records": point["records"], "batch": point["batch"],
            "threads": point["threads"], "private": int(private), "epoch": int(point["kind"] == "epoch"),
            "draws": math.ceil(50_000 / size), "output": f"{folder}/{output}",
        }

    widths = [int(w) for w in point["widths"].split("-")]
    ours_private = ("ours", tools.ours("training", keys(True, "ours")))
    ours_plain = ("ours, not private", tools.ours("training", keys(False, "ours-plain")))
    yield "ours again", [ours_private, ("theirs", tools.ours("training", keys(True, "theirs")))]
    yield "ours again, not private", [ours_plain, ("theirs", tools.ours("training", keys(False, "theirs")))]
    for name, environment, file, function, private in PEERS:
        if function == "jax_privacy_micro" and point["batch"] <= 256:
            continue
        ours = [ours_private] if private else [ours_plain, ours_private]
        yield name, [*ours, ("theirs", tools.python(environment, file, function, keys(private, "theirs")))]


def floats(file):
    return array.array("f", Path(file).read_bytes())


def agree(point, ours, theirs):
    """What is wrong with their answer; None when it is ours. Fills `theirs` with how near it is."""
    a, b = floats(ours["sum"]), floats(theirs["sum"])
    if len(a) != len(b):
        return f"a sum of {len(b)} coordinates where ours has {len(a)}"
    norm = math.sqrt(math.fsum(x * x for x in a))
    off = math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b))) / norm
    theirs["relative_difference"] = off
    if not off <= 1e-5:
        return f"its sum of gradients differs from ours by {off:.1e} of the norm; 1e-5 is allowed"
    for who, answer in (("ours", ours), ("its", theirs)):
        if "noise" in answer:
            noise = floats(answer["noise"])
            n, expected = len(noise), (NOISE * CLIP) ** 2
            mean = math.fsum(noise) / n
            variance = math.fsum(x * x for x in noise) / n
            answer["noise_variance"], answer["noise_draws"] = variance, n
            if not abs(variance / expected - 1) <= 6 * math.sqrt(2 / n):
                return f"{who} noise has variance {variance:.4g} over {n} draws where {expected:g} is due"
            if not abs(mean) <= 6 * math.sqrt(expected / n):
                return f"{who} noise has mean {mean:.2g} over {n} draws"
    if ("noise" in ours) != ("noise" in theirs):
        return "one of the two adds noise, the other none"
    return None
