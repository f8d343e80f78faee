"""Draws where the microseconds of a run go, of the figures that compare.py's ladder has measured.

    python bench/compare.py --only ladder --rounds 20 --json ladder.json
    python bench/microseconds.py ladder.json docs/microseconds.svg

A rung of the ladder is the C floor with one thing more; a bar is what that adds, at the 10th percentile.
"""

from __future__ import annotations

import json
import sys
from xml.sax.saxutils import escape

from compare import LADDER, RUN, RUN_DIRECT, low

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 290, 90, 26, 56
STYLE = """text { font: 13px sans-serif; fill: #222 } .title { font-size: 15px; font-weight: bold } .note { fill: #777 }
.floor { fill: #9db4cf } .ours { fill: #d9772b } .sum { fill: #5d7fa8 } .link { stroke: #999; stroke-dasharray: 2 2 }"""
NAMES = {
    "no isolation": "start and await /bin/true",
    "and capabilities, seccomp, an init": "capabilities, seccomp, execve of an init",
}


def steps_of(measured: dict[str, float]) -> list[tuple[str, float, float, str]]:
    """(name, where the bar begins, how long it is, its kind), in milliseconds, from the first rung to run()."""
    steps, before = [], 0.0
    for name in LADDER:
        steps.append((NAMES.get(name, name.removeprefix("and ")), before, measured[name] - before, "floor"))
        before = measured[name]
    steps.append(("the floor: system calls and nothing else", 0.0, before, "sum"))
    for name, what in ((RUN_DIRECT, "loopback, swap limit, usage, Python"), (RUN, "a pid 1 that stays and reports")):
        steps.append((what, before, measured[name] - before, "ours"))
        before = measured[name]
    return [*steps, ("run()", 0.0, before, "sum")]


def picture(steps: list[tuple[str, float, float, str]], note: str) -> str:
    scale = (WIDTH - LEFT - RIGHT) / max(start + length for _, start, length, _ in steps)
    height = TOP + ROW * len(steps) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img">',
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>',
        '<text x="12" y="26" class="title">Where the microseconds of a run go</text>',
    ]
    for index, (name, start, length, kind) in enumerate(steps):
        y, x = TOP + ROW * index, LEFT + min(start, start + length) * scale
        width = max(abs(length) * scale, 1.0)
        sign = "" if kind == "sum" else "+" if length >= 0 else "\N{MINUS SIGN}"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" class="{kind}"/>')
        parts.append(f'<text x="{x + width + 6:.1f}" y="{y + 14}">{sign}{abs(length) * 1000:.0f} µs</text>')
        end = LEFT + (start + length) * scale
        if index + 1 < len(steps):
            parts.append(f'<line x1="{end:.1f}" x2="{end:.1f}" y1="{y + 18}" y2="{y + ROW}" class="link"/>')
    parts.append(f'<text x="12" y="{height - 14}" class="note">{escape(note)}</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    with open(sys.argv[1]) as file:
        results = json.load(file)
    here = results["machine"]
    machine = (
        f"Linux {here['kernel']}, {here['cpus']} x {here['cpu']}, Python {here['python']}, load {here['load'][0]:.0f}"
    )
    note = f"p10 of {results['rounds']} rounds; {machine}"
    measured = {name: low(samples) for name, samples in results["ladder"].items()}
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(picture(steps_of(measured), note))


if __name__ == "__main__":
    main()
