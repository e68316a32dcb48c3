"""A small kit for pictures: shapes and texts in user units, written as SVG in two themes.

Text stays text. A picture is 480 units wide, so that 13 units are readable on a phone.
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 480
SIZE, SMALL = 13, 12
LEADING = 16
"""Units from one line of text to the next."""
FONT = "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"

THEMES = {
    "light": {
        "ink": "#1f2328", "soft": "#57606a", "line": "#6e7781", "rule": "#d0d7de",
        "process": "#ddf4ff", "process-edge": "#0969da", "topic": "#fff1d6",
        "topic-edge": "#9a6700", "file": "#eaeef2", "file-edge": "#6e7781",
        "blue": "#0969da", "orange": "#bc4c00", "green": "#1a7f37", "red": "#cf222e",
        "sampled": "#a8d5ff", "plain": "#e3e7eb", "other": "#ffd8a8",
    },
    "dark": {
        "ink": "#e6edf3", "soft": "#9da7b3", "line": "#8b949e", "rule": "#3d444d",
        "process": "#12304f", "process-edge": "#58a6ff", "topic": "#3d2e0b",
        "topic-edge": "#d29922", "file": "#2a3038", "file-edge": "#8b949e",
        "blue": "#58a6ff", "orange": "#f0883e", "green": "#3fb950", "red": "#ff7b72",
        "sampled": "#1f5a96", "plain": "#30363d", "other": "#7a4a12",
    },
}  # fmt: skip
"""Colours by tone; the background is whatever the page has."""

NARROW, BROAD = frozenset("iljtfrI.,:;'|!()[] /-"), frozenset("mwMW@→←")


def width_of(text: str, size: float) -> float:
    """About as wide as a text is, by a wide font."""
    units = sum(0.4 if c in NARROW else 0.95 if c in BROAD else 0.64 for c in text)
    return units * size


@dataclass(frozen=True)
class Words:
    """A line of text, with the box that it takes."""

    x: float
    y: float
    text: str
    tone: str = "ink"
    size: float = SIZE
    anchor: str = "start"
    bold: bool = False

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        wide = width_of(self.text, self.size)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, self.y - self.size * 0.8, left + wide, self.y + self.size * 0.25


class Picture:
    """One picture; methods add to it, `svg` writes it.

    Args:
        name: Of its files.
        title: For people who hear it.
        about: The same, at length.
        height: In units.
    """

    def __init__(self, name: str, title: str, about: str, height: float) -> None:
        self.name, self.title, self.about, self.height = name, title, about, height
        self.words: list[Words] = []
        self._shapes: list[str | Words] = []

    def text(self, x, y, *lines, tone="ink", size=SIZE, anchor="start", bold=False):
        """Write lines below each other; y is the first one's base line."""
        for number, line in enumerate(lines):
            words = Words(x, y + number * LEADING, line, tone, size, anchor, bold)
            self.words.append(words)
            self._shapes.append(words)

    def box(self, x, y, wide, high, *lines, kind="process", bold=False, radius=6):
        """A filled box with lines in its middle."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="{radius}" '
            f'fill="{{{kind}}}" stroke="{{{kind}-edge}}"/>'
        )
        top = y + high / 2 - (len(lines) - 1) * LEADING / 2 + SIZE * 0.35
        self.text(x + wide / 2, top, *lines, anchor="middle", bold=bold)

    def bar(self, x, y, wide, high, tone, label=""):
        """A piece of a bar, with a label in it."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="2" fill="{{{tone}}}"/>'
        )
        if label:
            self.text(x + wide / 2, y + high / 2 + SMALL * 0.35, label, size=SMALL, anchor="middle")

    def line(self, *points, tone="line", dashed=False, thick=1.3):
        """A line through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{{{tone}}}" stroke-width="{thick}"{dash}/>'
        )

    def area(self, *points, tone):
        """A filled shape without an edge."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._shapes.append(f'<polygon points="{path}" fill="{{{tone}}}"/>')

    def arrow(self, *points, tone="line", dashed=False):
        """A line with a head at its last point; the last piece is straight up, down or aside."""
        self.line(*points, tone=tone, dashed=dashed)
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        bx, by = x1 - 7 * dx, y1 - 7 * dy
        self._shapes.append(
            f'<polygon points="{x1:g},{y1:g} {bx + 4 * dy:g},{by + 4 * dx:g} '
            f'{bx - 4 * dy:g},{by - 4 * dx:g}" fill="{{{tone}}}"/>'
        )

    def cross(self, x, y, half=5, tone="red"):
        """Where something dies."""
        self.line((x - half, y - half), (x + half, y + half), tone=tone, thick=2.2)
        self.line((x - half, y + half), (x + half, y - half), tone=tone, thick=2.2)

    def dot(self, x, y, tone, radius=4):
        """A point of a curve, or a mark."""
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{{{tone}}}"/>')

    def svg(self, theme: str) -> str:
        """The file's text."""
        colours = THEMES[theme]
        body = "\n".join(_element(shape, colours) for shape in self._shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" '
            f'width="{WIDTH}" height="{self.height:g}" role="img" aria-labelledby="t d" '
            f'font-family="{FONT}">\n'
            f'<title id="t">{escape(self.title)}</title>\n<desc id="d">{escape(self.about)}</desc>\n'
            f"{body}\n</svg>\n"
        )

    def faults(self) -> list[str]:
        """Texts that overlap each other or leave the picture."""
        found = []
        for at, words in enumerate(self.words):
            left, top, right, bottom = words.box()
            if left < 0 or right > WIDTH or top < 0 or bottom > self.height:
                found.append(f"{self.name}: {words.text!r} leaves the picture")
            for other in self.words[at + 1 :]:
                l2, t2, r2, b2 = other.box()
                if left < r2 and l2 < right and top < b2 and t2 < bottom:
                    found.append(f"{self.name}: {words.text!r} and {other.text!r} overlap")
        return found


def _element(shape: str | Words, colours: dict[str, str]) -> str:
    if isinstance(shape, str):
        return shape.format_map(colours)
    bold = ' font-weight="600"' if shape.bold else ""
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    return (
        f'<text x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size:g}"{anchor}{bold} '
        f'fill="{colours[shape.tone]}">{escape(shape.text)}</text>'
    )
