"""Runs the simulations, prices what is too large for them, and writes table and pictures; started by run.sh.

    study.py --simulated PROGRAM --priced PROGRAM --output FOLDER [--quick]

Checks itself: every row is there, every sum that could be looked at was right (else the program stops), and nothing was
faster than a bound. The cost of a training run: cost.py.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import cost
import platforms
import report

MOST_MESSAGES = 150_000  # simulating more takes minutes
MOST_BYTES = 4 << 30     # of all ranks' vectors: longer ones take minutes, too
MOST_TIMES = 20          # dearer than the cheapest by this factor: a picture need not show it
HUGE = 100_000           # ranks, by the model alone


def price(program, questions):
    """questions: (ranks, bytes, network), sorted by ranks. A row for each algorithm and question that has a price."""
    lines = "".join(f"{ranks} {size} {net['alpha']} {net['beta']} {net['gamma']}\n" for ranks, size, net in questions)
    done = subprocess.run([program], input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"study.py: {done.stderr.strip()}")
    return json.loads(done.stdout)


def plan(priced):
    """Of the priced rows of one number of ranks and all sizes: (what is simulated, {what is not: why})."""
    cheapest = {}
    for row in priced:
        cheapest[row["bytes"]] = min(row["seconds"], cheapest.get(row["bytes"], row["seconds"]))
    run, left_out = [], {}
    for row in priced:
        key = row["algorithm"], row["bytes"]
        times = row["seconds"] / cheapest[row["bytes"]]
        if times > MOST_TIMES:
            left_out[key] = f"{times:.0f} times the cheapest by the model"
        elif row["ranks"] * row["bytes"] > MOST_BYTES:
            left_out[key] = f"{row['ranks'] * row['bytes'] >> 30} GiB of vectors"
        elif row["messages"] > MOST_MESSAGES:
            left_out[key] = f"{row['messages']:,} messages"
        else:
            run.append(key)
    return run, left_out


def simulate(program, folder, kind, ranks, contests):
    """One cluster. Returns the rows that the ranks wrote."""
    name = f"{kind.replace(' ', '_')}_{ranks}"
    (folder / f"{name}.xml").write_text(platforms.platform(kind, ranks))
    (folder / f"{name}.hosts").write_text(platforms.hosts(ranks))
    output = folder / f"{name}.json"
    command = ["smpirun", "-np", str(ranks), "-platform", f"{folder}/{name}.xml", "-hostfile", f"{folder}/{name}.hosts",
               *platforms.options(), program, str(output), str(platforms.SECONDS_PER_BYTE_ADDED),
               *(f"{algorithm}:{size}" for algorithm, size in contests)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"study.py: the simulation of {ranks} ranks on a {kind} failed:\n{(done.stderr + done.stdout)[-2000:]}")
    print(f"simulated: {kind}, {ranks} ranks, {len(contests)} contests", flush=True)
    return [row | {"network": kind} for row in json.loads(output.read_text())]


def check(rows, expected):
    """Raises what is wrong with the simulated rows."""
    got = {(row["network"], row["ranks"], row["algorithm"], row["bytes"]) for row in rows}
    if got != expected:
        raise ValueError(f"rows missing: {sorted(expected - got)}; not asked for: {sorted(got - expected)}")
    for row in rows:
        least = max(platforms.bounds(row["ranks"], row["bytes"]))
        if row["seconds"] < least * (1 - 1e-3):
            raise ValueError(f"faster than possible ({least} s): {row}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", required=True)
    parser.add_argument("--priced", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    o = parser.parse_args()
    o.output.mkdir(parents=True, exist_ok=True)
    sizes = [1 << 10, 1 << 20] if o.quick else [1 << 10, 1 << 16, 1 << 20, 1 << 24]
    ranks = [16, 64] if o.quick else [16, 64, 256, 1024]
    huge = [4 * HUGE] if o.quick else [1 << 10, 4 * HUGE, 64 * HUGE, 1024 * HUGE]

    model = [row | {"network": "model"} for row in price(
        o.priced, [(p, n, platforms.MODEL) for p in ranks for n in sizes] + [(HUGE, n, platforms.MODEL) for n in huge])]
    jobs, expected, left_out = [], set(), []
    for p in ranks:
        contests, why = plan([row for row in model if row["ranks"] == p])
        for kind in platforms.KINDS:
            jobs.append((kind, p, contests))
            expected |= {(kind, p, *contest) for contest in contests}
            left_out += [{"network": kind, "ranks": p, "algorithm": a, "bytes": n, "not simulated": reason}
                         for (a, n), reason in why.items()]
    rows = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(simulate, o.simulated, o.output, *job) for job in reversed(jobs)]:
            rows += done.result()
    check(rows, expected)
    assumptions = json.loads((Path(__file__).parent / "clusters.json").read_text())
    runs = cost.runs(assumptions, lambda questions: price(o.priced, questions))

    everything = {"platforms": {kind: shapes for kind, (_, shapes) in platforms.KINDS.items()}, "model": platforms.MODEL,
                  "rows": rows + model + left_out, "training": runs, "assumptions": assumptions}
    (o.output / "study.json").write_text(json.dumps(everything, indent=1))
    (o.output / "study.md").write_text(report.markdown(rows + model) + "\n" + cost.markdown(runs))
    (o.output / "winners.svg").write_text(report.winners(rows + model))
    (o.output / "curves.svg").write_text(report.curves(rows, max(p for p in ranks if p <= 256)))
    print((o.output / "study.md").read_text())
    print(f"written: {o.output}/study.json, study.md, winners.svg, curves.svg")


if __name__ == "__main__":
    sys.exit(main())
