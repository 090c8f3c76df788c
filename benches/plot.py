"""Lines on logarithmic axes, one panel for each operation, as an SVG. Nothing but text is needed for that."""

import html
import math

COLOURS = {"iptables-legacy": "#d55e00", "iptables-nft": "#0072b2", "nft": "#999999", "kernel": "#000000", "carried (legacy)": "#009e73", "carried (nft)": "#cc79a7"}
DASHES = {"kernel": "2 3", "nft": "6 3"}
# The two that are nearly always one line: the other shows on both sides of it.
BROAD = {"carried (legacy)": 5}
ACROSS = 3
WIDTH, HEIGHT = 330, 240  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 28, 40


def decades(values):
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def power(exponent):
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:g}"


def text(x, y, words, anchor="middle", size=11, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{more}>{html.escape(words)}</text>'


def panel(title, lines, across, down, axes):
    """One operation: {side: [(rules, milliseconds)]}."""
    (x_low, x_high), (y_low, y_high) = axes
    left, right, top, bottom = across + LEFT, across + WIDTH - RIGHT, down + TOP, down + HEIGHT - BOTTOM
    at = lambda value, low, high, start, end: start + (math.log10(value) - low) / (high - low) * (end - start)
    out = [text((left + right) / 2, down + 18, title, size=13, more=' font-weight="bold"')]
    for exponent in range(x_low, x_high + 1):
        x = at(10.0**exponent, x_low, x_high, left, right)
        out += [f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>', text(x, bottom + 14, power(exponent), size=10)]
    for exponent in range(y_low, y_high + 1):
        y = at(10.0**exponent, y_low, y_high, bottom, top)
        out += [f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>', text(left - 5, y + 4, power(exponent), "end", 10)]
    out += [text((left + right) / 2, bottom + 30, "rules in the chain"), text(across + 12, (top + bottom) / 2, "milliseconds", more=f' transform="rotate(-90 {across + 12} {(top + bottom) / 2:.1f})"')]
    for side, points in sorted(lines.items(), key=lambda line: -BROAD.get(line[0], 0)):
        places = [(at(x, x_low, x_high, left, right), at(y, y_low, y_high, bottom, top)) for x, y in points]
        colour, dash = COLOURS.get(side, "#666"), f' stroke-dasharray="{DASHES[side]}"' if side in DASHES else ""
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{BROAD.get(side, 1.8)}"{dash} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in places]
    return out


def legend(sides, across, down):
    out = []
    for number, side in enumerate(sides):
        y = down + 40 + 20 * number
        dash = f' stroke-dasharray="{DASHES[side]}"' if side in DASHES else ""
        out += [f'<line x1="{across + LEFT}" y1="{y}" x2="{across + LEFT + 34}" y2="{y}" stroke="{COLOURS.get(side, "#666")}" stroke-width="{BROAD.get(side, 2)}"{dash}/>', text(across + LEFT + 42, y + 4, side, "start", 12)]
    return out


def growth(title, figures):
    """`figures` is {operation: {side: {rules: milliseconds}}}; tables without a rule have no place on such an axis."""
    panels = {what: {side: sorted((int(x), y) for x, y in points.items() if int(x) > 0 and y) for side, points in sides.items()} for what, sides in figures.items()}
    panels = {what: {side: points for side, points in sides.items() if len(points) > 1} for what, sides in panels.items()}
    panels = {what: sides for what, sides in panels.items() if sides}
    every = [point for sides in panels.values() for points in sides.values() for point in points]
    if not every:
        return None
    axes = decades([x for x, _ in every]), decades([y for _, y in every])
    sides = [side for side in COLOURS if any(side in shown for shown in panels.values())]
    height = 34 + HEIGHT * math.ceil((len(panels) + 1) / ACROSS)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * ACROSS} {height}" font-family="sans-serif" fill="#222">', f'<rect width="100%" height="100%" fill="#fff"/>', text(WIDTH * ACROSS / 2, 22, title, size=14)]
    for number, (what, lines) in enumerate(panels.items()):
        out += panel(what, lines, number % ACROSS * WIDTH, 34 + number // ACROSS * HEIGHT, axes)
    out += legend(sides, len(panels) % ACROSS * WIDTH, 34 + len(panels) // ACROSS * HEIGHT)
    return "\n".join([*out, "</svg>", ""])
