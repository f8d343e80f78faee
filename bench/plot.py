"""A bar chart as SVG: a bar is the median, the line across it the 10th percentile."""

from __future__ import annotations

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 300, 110, 26, 56
STYLE = """text { font: 13px sans-serif; fill: #222 } .title { font-size: 15px; font-weight: bold }
.note { fill: #777 } .bar { fill: #9db4cf } .ours { fill: #d9772b } .tick { stroke: #222; stroke-width: 2 }
.grid { stroke: #e4e4e4 }"""


def _step(longest: float) -> float:
    """A round distance of grid lines: 1, 2 or 5 times a power of ten, at most ten of them."""
    unit = 0.001
    while True:
        for factor in (1, 2, 5):
            if longest <= unit * factor * 10:
                return unit * factor
        unit *= 10


def bars(title: str, rows: list[tuple[str, float, float]], ours: str = "cycontainer") -> str:
    """The picture of `rows`: name, median and 10th percentile, in milliseconds; a name with `ours` stands out."""
    rows = sorted(rows, key=lambda row: row[1])
    longest = max(median for _, median, _ in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 44}" role="img">',
        f"<style>{STYLE}</style><rect width='100%' height='100%' fill='white'/>",
        f'<text x="12" y="26" class="title">{escape(title)}</text>',
    ]
    step, mark = _step(longest), 0.0
    while mark <= longest:
        x = LEFT + mark * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" class="note">{mark:g}</text>')
        mark += step
    for index, (name, median, low) in enumerate(rows):
        y = TOP + ROW * index
        kind = "ours" if ours in name else "bar"
        tick = LEFT + low * scale
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="18" class="{kind}"/>')
        parts.append(f'<line x1="{tick:.1f}" x2="{tick:.1f}" y1="{y}" y2="{y + 18}" class="tick"/>')
        parts.append(f'<text x="{LEFT + median * scale + 6:.1f}" y="{y + 14}">{median:.2f} ms</text>')
    note = "milliseconds; bar: median, line: 10th percentile"
    parts.append(f'<text x="{LEFT}" y="{bottom + 36}" class="note">{note}</text></svg>')
    return "\n".join(parts) + "\n"
