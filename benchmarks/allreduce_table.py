"""Prints what benchmarks/allreduce.sh measured: the time of auto and of our best over the libraries' own.

"ordinary" is auto on memory that the other rank cannot read in place.
Ratios to MPI are those of over_mpi (benchmarks/allreduce.cpp), the geometric mean of the two runs; of microseconds the
lesser median counts: the run that was disturbed less. Also writes race.json: all rows.
"""
import collections
import glob
import json
import math
import os
import sys

folder = sys.argv[1]
rows = []
for path in sorted(glob.glob(folder + "/*.[0-9].json")):
    with open(path) as file:
        rows += [row | {"library": os.path.basename(path).split(".")[0]} for row in json.load(file)]
for path in sorted(glob.glob(folder + "/*.why")):
    with open(path) as file:
        reason = file.read().strip()
    library = os.path.basename(path)[:-4]
    rows.append({"library": library, "not run": reason})
    print(f"{library}: not run: {reason}")
with open(folder + "/race.json", "w") as file:
    json.dump(rows, file, indent=1)

times = collections.defaultdict(list)
ratios = collections.defaultdict(list)
picks = {}
for row in rows:
    if "bytes" in row:
        key = row["library"], row["algorithm"], row["bytes"]
        times[key].append(row["median_us"])
        if row.get("over_mpi"):
            ratios[key].append(row["over_mpi"])
        picks[key] = row["picked"]
median = {key: min(t) for key, t in times.items()}
over = {key: math.prod(r) ** (1 / len(r)) for key, r in ratios.items()}
for mpi in ("openmpi", "openmpi_as_it_comes", "mpich"):
    sizes = sorted({key[2] for key in median if key[0] == mpi})
    if not sizes:
        continue
    ours = sorted({key[1] for key in median if key[0] == mpi} - {"auto", "auto_ordinary", "MPI_Allreduce"})
    print(f"\n{mpi}, microseconds; then ours over theirs (below 1: ours is faster)")
    print(f"{'bytes':>9} {'MPI':>10} {'auto':>10} {'gloo':>10}   auto/MPI  best/MPI  auto/best  gloo/auto  ordinary/MPI"
          "  picked, best")
    for size in sizes:
        library, auto = median[mpi, "MPI_Allreduce", size], median[mpi, "auto", size]
        gloo = median.get(("gloo", "all_reduce", size))
        ours_over = over[mpi, "auto", size]
        best = min(ours, key=lambda name: over[mpi, name, size])
        least = over[mpi, best, size]
        show = lambda x, width: f"{x:{width}.2f}" if x is not None else f"{'-':>{width}}"
        print(f"{size:9} {library:10.2f} {auto:10.2f} {show(gloo, 10)} {ours_over:10.2f} "
              f"{least:9.2f} {ours_over / least:10.2f} {show(gloo and gloo / auto, 10)} "
              f"{show(over.get((mpi, 'auto_ordinary', size)), 13)}"
              f"  {picks[mpi, 'auto', size]}, {best}")
