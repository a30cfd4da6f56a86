"""Gloo's part of the race in benchmarks/allreduce.sh: torch.distributed.all_reduce on the CPU, two ranks.

Writes the rows that allreduce.cpp writes: each iteration begins at a barrier and counts as long as its slower rank.
"""
import argparse
import json
import random
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as processes


def rank_main(rank, rendezvous, path, seconds):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + rendezvous, rank=rank, world_size=2)
    sizes = [4 * 4**i for i in range(13)]
    times = {size: [] for size in sizes}
    vectors = {size: torch.ones(size // 4) for size in sizes}
    for size, vector in vectors.items():
        dist.all_reduce(vector)
        assert bool((vector == 2).all()), size
        vector.zero_()
    share = seconds / 5 / len(sizes)
    order = random.Random(1)
    for turn in range(5):
        order.shuffle(sizes)
        for size in sizes:
            used = sum(times[size])
            left = share * (turn + 1) - used
            if turn > 0 and left <= 0:
                continue
            runs = 1 if turn == 0 else int(min(2000, max(1, left * len(times[size]) / used)))
            batch = torch.zeros(runs, dtype=torch.float64)
            for i in range(runs):
                dist.barrier()
                start = time.perf_counter()
                dist.all_reduce(vectors[size])
                batch[i] = time.perf_counter() - start
            dist.all_reduce(batch, op=dist.ReduceOp.MAX)
            times[size] += batch.tolist()
    if rank == 0:
        rows = []
        for size in sorted(sizes):
            t = sorted(times[size])
            rows.append({"library": "gloo", "algorithm": "all_reduce", "ranks": 2, "transport": "TCP on loopback",
                         "bytes": size, "median_us": t[len(t) // 2] * 1e6, "p99_us": t[int(0.99 * len(t))] * 1e6,
                         "iterations": len(t), "picked": ""})
        with open(path, "w") as file:
            json.dump(rows, file, indent=1)
    dist.destroy_process_group()


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("--json", required=True)
    asked.add_argument("--seconds", type=float, default=10)
    asked = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(rank_main, args=(folder + "/rendezvous", asked.json, asked.seconds), nprocs=2)
