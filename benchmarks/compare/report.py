"""The tables of results.jsonl: Markdown (tables.md), and one self-contained HTML page (page.html).

    report.py FILE [--docs docs/performance.md --parts training,whole]     also puts the tables between the two marks in
                                                                           that document; of all parts, or of some

Of every part the latest run stands there. A cell is the median time of theirs and the median of theirs / ours over the
repeats, which ran side by side, with least and most. The noise floor of a table is the largest ratio of ours to ours in
it: a ratio within it is neither a win nor a loss, and is marked =. A loss is marked "loss".
"""
import argparse
import html
import importlib
import json
import os
from pathlib import Path

BEGIN, END = "<!-- results: written by benchmarks/compare/report.py -->", "<!-- end of results -->"


def median(values):
    values = sorted(values)
    return (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2


def shown(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def latest(rows):
    """part -> (the run's own line, its rows), of the last run that has rows of that part."""
    runs = {row["run"]: row for row in rows if row["status"] == "run"}
    last = {row["part"]: row["run"] for row in rows if row["status"] != "run"}
    return {part: (runs[run], [r for r in rows if r["run"] == run and r.get("part") == part])
            for part, run in last.items()}


class Table:
    """One table of a part: peers down, columns across."""

    def __init__(self, part, title, rows):
        self.part, self.unit = part, part.unit(rows[0]["point"])
        self.columns = list(dict.fromkeys(part.place(r["point"])[1] for r in rows))
        self.floor = max([max(x, 1 / x) for r in rows if r["status"] == "measured" and r["peer"].startswith("ours again")
                          for x in [self.ratio(r, next(iter(r["seconds"])))]], default=None)
        self.title = f"{title} (noise floor: {f'{self.floor:.2f}' if self.floor else 'not measured'})"
        self.cells, self.memory, self.problems = {}, {}, []
        groups = {}
        for r in rows:
            groups.setdefault((r["peer"], part.place(r["point"])[1]), []).append(r)
        for (peer, column), group in groups.items():
            self.add(peer, column, group)

    @staticmethod
    def ratio(row, side):
        return row["seconds"]["theirs"] / row["seconds"][side]

    def add(self, peer, column, group):
        measured = [r for r in group if r["status"] == "measured"]
        for r in group:
            if r["status"] in ("not run", "disagrees"):
                self.cells.setdefault((peer, ""), {})[column] = r["status"]
                self.problems.append(f"{peer}, {column}: {r['status']}: {r['why']}")
        if not measured:
            return
        for side in measured[0]["seconds"]:
            if side == "theirs":
                continue
            own = self.cells.setdefault((side, "our own time"), {})
            if peer.startswith("ours again") and side == next(iter(measured[0]["seconds"])):
                own[column] = self.time([r["seconds"][side] for r in measured])
            elif column not in own:
                own[column] = self.time([r["seconds"][side] for r in measured])
            ratios = [self.ratio(r, side) for r in measured]
            middle, spread = median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f}"
            if peer.startswith("ours again"):
                mark = "="
            elif self.floor is None:
                mark = "no noise floor"
            else:
                mark = "=" if 1 / self.floor <= middle <= self.floor else "loss" if middle < 1 else ""
            text = f"{self.time([r['seconds']['theirs'] for r in measured])} · {middle:.2f}x ({spread}) {mark}".strip()
            self.cells.setdefault((peer, side), {})[column] = text
        for side in measured[0]["seconds"]:
            who = peer if side == "theirs" else side
            if not (side == "theirs" and peer.startswith("ours again")):
                most = max(r["peak_mib"][side] for r in measured)
                self.memory.setdefault(who, {})[column] = f"{most:,.0f} MiB, {measured[0]['start'][side]:.2g} s"

    def time(self, seconds):
        return shown(median(seconds) * self.unit[1])

    def grid(self):
        """Rows of text: the peer and the side it is compared with, then a cell for every column."""
        order = sorted(self.cells, key=lambda key: (key[1] != "our own time", key[0] not in [""]))
        yield [f"{self.unit[0]} · theirs / ours", *self.columns]
        for peer, side in order:
            name = peer if side in ("our own time", "") else f"{peer} / {side}"
            yield [name, *(self.cells[peer, side].get(c, "") for c in self.columns)]

    def grids(self):
        yield list(self.grid())
        yield list(self.memory_grid())

    def memory_grid(self):
        yield ["peak memory of the process, and seconds from its start to its first answer (compilers included)", *self.columns]
        for peer, cells in self.memory.items():
            yield [peer, *(cells.get(c, "") for c in self.columns)]


def tables(part, rows):
    grouped = {}
    for r in rows:
        grouped.setdefault(part.place(r["point"])[0], []).append(r)
    return [Table(part, title, group) for title, group in grouped.items()]


def caption(run, rows):
    m = run["machine"]
    repeats = 1 + max((r["repeat"] for r in rows if r["status"] == "measured"), default=-1)
    others = [r["cores"] for r in rows if r["status"] == "others"]
    words = [f"{run['run'][:16].replace('T', ' ')} UTC, {m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}, "
             f"Python {m['python']}; dpsgd {run['versions'].get('dpsgd')}; `{run['command']}`{f'; {repeats} repeats' if repeats else ''}."]
    if others and max(others) > 0.2:
        words.append(f"**Provisional: the machine was busy with other work**, {median(others):.2g} of its cores at the median of "
                     f"the pairings and {max(others):.2g} at most; ratios are steadier than times.")
    if run["quick"]:
        words.append("**A quick run: few points, short times.**")
    return " ".join(words)


def sections(rows):
    """For every part: its name, caption, notes, tables."""
    for name, (run, own) in latest(rows).items():
        part = importlib.import_module(name)
        yield name, caption(run, own), part.NOTES, part.tables(own) if hasattr(part, "tables") else tables(part, own)


def markdown(rows):
    out = []
    for name, words, notes, made in sections(rows):
        out += [f"### {name}", "", words, ""]
        out += [f"- {peer} {note}" for peer, note in notes.items()] + [""] * bool(notes)
        for table in made:
            out += [f"**{table.title}**", ""]
            for grid in table.grids():
                lines = ["| " + " | ".join(cells) + " |" for cells in grid]
                out += [lines[0], "|" + "---|" * lines[0].count(" | ") + "---|", *lines[1:], ""]
            out += [f"- {p.replace('|', '/')}" for p in table.problems] + [""] * bool(table.problems)
    return "\n".join(out)


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0 1.2em}td,th{border-bottom:1px solid #ddd;padding:.25em .7em;text-align:left}
td+td{font-variant-numeric:tabular-nums}.loss{color:#b00}.problem{color:#b00}caption{text-align:left;font-weight:600}"""


def page(rows):
    e = html.escape
    out = ["<!doctype html><meta charset=utf-8><title>dpsgd side by side</title>", f"<style>{STYLE}</style>",
           "<h1>dpsgd side by side with its peers</h1>", f"<p>{e(' '.join(__doc__.split(chr(10) * 2)[2].split()))}</p>"]
    for name, words, notes, made in sections(rows):
        out.append(f"<h2>{e(name)}</h2><p>{e(words.replace('**', ''))}</p>")
        out += [f"<p>{e(peer)} {e(note)}</p>" for peer, note in notes.items()]
        for table in made:
            for title, grid in zip((table.title, ""), table.grids()):
                head, *body = grid
                out.append(f"<table><caption>{e(title)}</caption><tr>{''.join(f'<th>{e(c)}</th>' for c in head)}</tr>")
                for cells in body:
                    marked = ((" class=loss" if c.strip("*").endswith("loss") else "") + f">{e(c)}</td>" for c in cells)
                    out.append(f"<tr>{''.join('<td' + c for c in marked)}</tr>")
                out.append("</table>")
            out += [f"<p class=problem>{e(p)}</p>" for p in table.problems]
    return "\n".join(out) + "\n"


def read(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def replace(file, text):
    """In one step: what stood there survives any failure."""
    part = Path(f"{file}.part")
    part.write_text(text)
    os.replace(part, file)


def write(results):
    """page.html and tables.md beside the results."""
    rows = read(results)
    folder = Path(results).parent
    replace(folder / "tables.md", markdown(rows))
    replace(folder / "page.html", page(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results")
    parser.add_argument("--docs")
    parser.add_argument("--parts")
    options = parser.parse_args()
    write(options.results)
    if options.docs:
        text = Path(options.docs).read_text()
        before, rest = text.split(BEGIN)
        rows = read(options.results)
        if options.parts:
            rows = [r for r in rows if r.get("part") in (None, *options.parts.split(","))]
        replace(options.docs, before + BEGIN + "\n\n" + markdown(rows) + "\n" + END + rest.split(END)[1])
