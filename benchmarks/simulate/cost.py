"""What a training run costs, in time and money, by cluster, network and algorithm; all assumptions: clusters.json.

A step is the batch's records, shared by the ranks, and one allreduce of the gradient by the cost model. Data are already
where they are needed; ranks wait for nobody but in the allreduce; a node is paid for by the second, however full.
"""
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def runs(assumptions, price):
    """A row for each workload, cluster, number of ranks and algorithm. price: as study.price, without its program."""
    cases = [(ranks, work, cluster) for ranks in RANKS for work in assumptions["workloads"]
             for cluster in assumptions["clusters"]]
    rows = []
    for priced in price([(ranks, 4 * work["parameters"], {key: cluster[key] for key in ("alpha", "beta", "gamma")})
                         for ranks, work, cluster in cases]):
        ranks, work, cluster = cases[priced["question"]]
        steps = work["epochs"] * work["records"] / work["batch"]
        computing = work["batch"] / ranks * work["seconds_per_record"]
        hours = steps * (computing + priced["seconds"]) / 3600
        nodes = -(-ranks // cluster["ranks_per_node"])
        rows.append({"workload": work["name"], "cluster": cluster["name"], "ranks": ranks, "nodes": nodes,
                     "algorithm": priced["algorithm"], "step_computing_s": computing,
                     "step_allreduce_s": priced["seconds"], "hours": hours,
                     "dollars": hours * nodes * cluster["dollars_per_hour"]})
    order = [(work["name"], cluster["name"]) for work in assumptions["workloads"] for cluster in assumptions["clusters"]]
    rows.sort(key=lambda row: (order.index((row["workload"], row["cluster"])), row["ranks"]))
    return rows


def duration(hours):
    seconds = hours * 3600
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{hours:.1f} h"


def markdown(rows):
    """For each workload and cluster: one rank, the fastest, and the fastest with naive and with the ring."""
    lines = ["| workload | cluster | one rank | fastest | with ring there | with naive there |", "|---|---|---|---|---|---|"]

    def words(row):
        return f"{duration(row['hours'])}, ${row['dollars']:.4f}" if row["dollars"] < 1 else \
            f"{duration(row['hours'])}, ${row['dollars']:,.2f}"

    for work, cluster in dict.fromkeys((row["workload"], row["cluster"]) for row in rows):
        here = [row for row in rows if (row["workload"], row["cluster"]) == (work, cluster)]
        fastest = min(here, key=lambda row: row["hours"])
        one = next(row for row in here if row["ranks"] == 1)
        name = "" if fastest["ranks"] == 1 else f" ({fastest['algorithm']}, {fastest['ranks']} ranks)"
        other = {row["algorithm"]: row for row in here if row["ranks"] == fastest["ranks"]}
        lines.append(f"| {work} | {cluster} | {words(one)} | {words(fastest)}{name} | {words(other['ring'])} | "
                     f"{words(other['naive'])} |")
    return "\n".join(lines) + "\n"
