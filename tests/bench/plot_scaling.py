#!/usr/bin/env python3
"""Draws what scaling_bench wrote: plot_scaling.py RESULT.json > scaling.svg

Two panels over the context's length, both axes logarithmic: the time of a step, and the bytes that one layer call's join moves. A line for
each number of workers. Needs nothing beyond Python.
"""

import json
import math
import sys

PANEL_WIDTH, PANEL_HEIGHT = 420, 300
LEFT, TOP, GAP, BOTTOM = 70, 50, 90, 60
COLOURS = ["#1b6ca8", "#d1495b", "#2e933c", "#8f5fbf", "#c77d1e"]


def decades(low, high):
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def tokens_label(tokens):
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def number_label(value):
    return f"{value:g}" if value < 1e5 else f"1e{round(math.log10(value))}"


class Panel:
    """One diagram; turns values into places."""

    def __init__(self, left, xs, ys):
        self.left = left
        self.x_low, self.x_high = math.log(min(xs)), math.log(max(xs))
        ticks = decades(min(ys), max(ys))
        if len(ticks) < 2:
            ticks = [ticks[0] / 10, ticks[0], ticks[0] * 10]
        self.y_ticks = ticks
        self.y_low, self.y_high = math.log(ticks[0]), math.log(ticks[-1])

    def x(self, value):
        return self.left + PANEL_WIDTH * (math.log(value) - self.x_low) / (self.x_high - self.x_low or 1)

    def y(self, value):
        return TOP + PANEL_HEIGHT * (1 - (math.log(value) - self.y_low) / (self.y_high - self.y_low))

    def frame(self, title, contexts):
        yield f'<text x="{self.left}" y="{TOP - 16}" class="title">{title}</text>'
        for tick in self.y_ticks:
            y = self.y(tick)
            yield f'<line x1="{self.left}" y1="{y:.1f}" x2="{self.left + PANEL_WIDTH}" y2="{y:.1f}" class="grid"/>'
            yield f'<text x="{self.left - 8}" y="{y + 4:.1f}" class="right">{number_label(tick)}</text>'
        for context in contexts:
            x = self.x(context)
            yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + PANEL_HEIGHT}" class="grid"/>'
            yield f'<text x="{x:.1f}" y="{TOP + PANEL_HEIGHT + 18}" class="middle">{tokens_label(context)}</text>'
        yield (f'<text x="{self.left + PANEL_WIDTH / 2}" y="{TOP + PANEL_HEIGHT + 40}" class="middle">'
               "tokens of context</text>")

    def line(self, points, colour):
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in points:
            yield f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{colour}"/>'


def draw(result):
    points = result["points"]
    contexts = sorted({point["context_tokens"] for point in points})
    workers = sorted({point["workers"] for point in points})
    joined = [point for point in points if point["join_bytes_per_layer_call"] > 0]
    width = LEFT + 2 * PANEL_WIDTH + GAP + 130
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + PANEL_HEIGHT + BOTTOM}" '
           'font-family="sans-serif" font-size="12">')
    yield ("<style>.grid{stroke:#ddd}.title{font-size:14px;font-weight:bold}.right{text-anchor:end}"
           ".middle{text-anchor:middle}</style>")
    yield '<rect width="100%" height="100%" fill="white"/>'
    panels = [(Panel(LEFT, contexts, [p["step_ms_p50"] for p in points]), points, "step_ms_p50",
               f'one step of {result["layers"]} layers, milliseconds')]
    if joined:
        panels.append((Panel(LEFT + PANEL_WIDTH + GAP, contexts, [p["join_bytes_per_layer_call"] for p in joined]),
                       joined, "join_bytes_per_layer_call", "joined per layer call, bytes"))
    for panel, rows, field, title in panels:
        yield from panel.frame(title, contexts)
        for colour, count in zip(COLOURS, workers):
            line = [(row["context_tokens"], row[field]) for row in rows if row["workers"] == count]
            if line:
                yield from panel.line(sorted(line), colour)
    for index, (colour, count) in enumerate(zip(COLOURS, workers)):
        y = TOP + 20 * index + 10
        x = width - 110
        yield f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        yield f'<text x="{x + 30}" y="{y + 4}">{count} worker{"s" if count > 1 else ""}</text>'
    yield "</svg>"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        result = json.load(file)
    if result.get("format") != "kvgrid.scaling_bench" or result.get("format_version") != 1:
        sys.exit(f"{sys.argv[1]} was not written by scaling_bench --json")
    print("\n".join(draw(result)))


if __name__ == "__main__":
    main()
