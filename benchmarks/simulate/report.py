"""The study's table and pictures: who wins where, and how far from the lower bounds. SVG that needs nothing else."""
import math
from xml.sax.saxutils import escape

import platforms

NETWORKS = ("fat tree", "dragonfly", "model")
TITLES = {"fat tree": "fat tree (simulated)", "dragonfly": "dragonfly (simulated)", "model": "no crowding (cost model)"}
COLOURS = {
    "naive": "#8c8c8c", "all_to_all": "#d37295", "binomial_tree": "#9c755f", "recursive_doubling": "#e15759",
    "recursive_multiplying": "#ff9da7", "round_robin": "#bab0ac", "ring": "#4e79a7", "halving_doubling": "#f28e2b",
    "butterfly": "#edc948", "circulant": "#59a14f", "swing": "#76b7b2", "chain": "#6b6b6b", "double_tree": "#af7aa1",
    "hierarchical": "#2f6b8f",
}
STYLE = """<style>
  :root { --page: #ffffff; --ink: #1f2328; --faint: #d0d7de; }
  @media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --faint: #30363d; } }
  text { fill: var(--ink); font: 12px system-ui, sans-serif; } .small { font-size: 11px; }
  .title { font-size: 15px; font-weight: 600; } .grid { stroke: var(--faint); } .axis { text-anchor: middle; }
</style>
"""


def size_words(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0 and size & (size - 1) == 0:
            return f"{size // unit} {name}"
    return f"{size / 1e6:g} MB"


def bound(row):
    return max(platforms.bounds(row["ranks"], row["bytes"]))


def best(rows):
    """(network, ranks, bytes) -> its rows, the fastest first."""
    places = {}
    for row in rows:
        places.setdefault((row["network"], row["ranks"], row["bytes"]), []).append(row)
    return {place: sorted(there, key=lambda row: row["seconds"]) for place, there in places.items()}


def markdown(rows):
    """A table of winners: for each place the three fastest, as times of the lower bound."""
    lines = ["| network | ranks | bytes | bound | fastest | second | third |", "|---|---|---|---|---|---|---|"]
    for (network, ranks, size), there in sorted(best(rows).items(), key=lambda item: (NETWORKS.index(item[0][0]), *item[0][1:])):
        words = [f"{row['algorithm']} {row['seconds'] / bound(row):.2f}" for row in there[:3]]
        lines.append(f"| {network} | {ranks:,} | {size_words(size)} | {bound(there[0]) * 1e6:.1f} us | "
                     f"{' | '.join(words + ['-'] * (3 - len(words)))} |")
    return "\n".join(lines) + "\n"


def svg(width, height, title, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img">\n<title>{escape(title)}</title>\n{STYLE}'
            f'<rect width="100%" height="100%" fill="var(--page)"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def winners(rows):
    """A map: ranks by bytes, for each network; in each cell the fastest algorithm and its time over the lower bound."""
    places = best(rows)
    across, down, left = 148, 40, 84
    body = [text(16, 26, "The fastest allreduce, and its time over the lower bound", "title")]
    y = 44
    widest = 0
    for network in NETWORKS:
        groups = {}
        for (name, ranks, size) in places:
            if name == network:
                groups.setdefault(ranks > 4096, {"ranks": set(), "sizes": set()})
                groups[ranks > 4096]["ranks"].add(ranks), groups[ranks > 4096]["sizes"].add(size)
        for huge, group in sorted(groups.items()):
            sizes = sorted(group["sizes"])
            widest = max(widest, left + across * len(sizes))
            if not huge:
                y += 18
                body.append(text(16, y, TITLES[network], "title"))
            y += 18
            for i, size in enumerate(sizes):
                body.append(text(left + across * (i + 0.5), y, size_words(size), "small", "middle"))
            y += 6
            for ranks in sorted(group["ranks"]):
                body.append(text(left - 8, y + 24, f"{ranks:,}", "", "end"))
                for i, size in enumerate(sizes):
                    there = places.get((network, ranks, size))
                    if not there:
                        continue
                    row, x = there[0], left + across * i
                    body.append(f'<rect x="{x + 1}" y="{y + 1}" width="{across - 2}" height="{down - 2}" rx="4" '
                                f'fill="{COLOURS[row["algorithm"]]}" fill-opacity="0.35"/>')
                    body.append(text(x + across / 2, y + 17, row["algorithm"], "", "middle"))
                    body.append(text(x + across / 2, y + 32, f"{row['seconds'] / bound(row):.2f} x bound", "small", "middle"))
                y += down
    return svg(max(widest + 16, 560), y + 16, "Where each allreduce algorithm wins", body)


def curves(rows, ranks):
    """Time over the lower bound by bytes, a line for each algorithm, one panel for each simulated network."""
    kinds = [kind for kind in NETWORKS if any(row["network"] == kind for row in rows)]
    here = [row for row in rows if row["ranks"] == ranks]
    sizes = sorted({row["bytes"] for row in here})
    most = max([2.0] + [row["seconds"] / bound(row) for row in here])
    width, height, left, top = 330, 300, 56, 70
    body = [text(16, 26, f"Time over the lower bound, {ranks} ranks", "title")]
    names = sorted({row["algorithm"] for row in here}, key=list(COLOURS).index)
    for k, kind in enumerate(kinds):
        x0 = left + k * (width + 60)
        place_x = lambda size: x0 + width * (sizes.index(size) + 0.5) / len(sizes)
        place_y = lambda over: top + height * (1 - math.log(max(over, 1)) / math.log(most))
        body.append(text(x0, top - 14, TITLES[kind]))
        for mark in (1, 2, 5, 10, 20, 50, 100):
            if mark <= most:
                body.append(f'<line class="grid" x1="{x0}" x2="{x0 + width}" y1="{place_y(mark):.1f}" y2="{place_y(mark):.1f}"/>')
                body.append(text(x0 - 6, place_y(mark) + 4, f"{mark}", "small", "end"))
        for size in sizes:
            body.append(text(place_x(size), top + height + 18, size_words(size), "small", "middle"))
        for name in names:
            points = sorted((row["bytes"], row["seconds"] / bound(row)) for row in here
                            if row["network"] == kind and row["algorithm"] == name)
            if not points:
                continue
            path = " ".join(f"{place_x(size):.1f},{place_y(over):.1f}" for size, over in points)
            body.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
            body += [f'<circle cx="{place_x(size):.1f}" cy="{place_y(over):.1f}" r="3.5" fill="{COLOURS[name]}">'
                     f"<title>{name}, {size_words(size)}: {over:.2f} x bound</title></circle>" for size, over in points]
    x = left + len(kinds) * (width + 60) - 30
    for i, name in enumerate(names):
        body.append(f'<rect x="{x}" y="{top + 20 * i}" width="12" height="12" fill="{COLOURS[name]}"/>')
        body.append(text(x + 18, top + 20 * i + 11, name))
    return svg(x + 190, top + max(height, 20 * len(names)) + 40, "Time over the lower bound", body)
