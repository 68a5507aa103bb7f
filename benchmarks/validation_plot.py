"""The plot of docs/validation.md: predicted over published, both logarithmic, as SVG written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from validation_rows import MEASUREMENT, Compared

from codesign.report.figures import FONT, GREY, INK, LINE, MUTED, PALETTE

_SIDE, _LEFT, _TOP, _LEGEND = 560, 70, 40, 210
_BAND = log10(1.3)
_COLOURS = (*(colour for colour in PALETTE if colour != GREY), "#2f4858", "#a0366f", "#6b8e23")


def plot(compared: Sequence[Compared]) -> str:
    """Measurements in the colour of their machine, estimators in grey; the band is 30 % to both sides."""
    values = [value for part in compared for value in (float(part.row.published), part.prediction.predicted)]
    first, last = floor(log10(min(values))), ceil(log10(max(values)))
    axis = _Axis(first, last)
    machines = list(dict.fromkeys(part.row.machine for part in compared if part.row.kind == MEASUREMENT))
    colours = dict(zip(machines, _COLOURS, strict=False))
    width, height = _LEFT + _SIDE + _LEGEND, _TOP + _SIDE + 60
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{escape(FONT)}"'
        ' font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *axis.grid(),
        *axis.band(),
        *(axis.dot(part, GREY, 2) for part in compared if part.row.kind != MEASUREMENT),
        *(axis.dot(part, colours[part.row.machine], 4) for part in compared if part.row.kind == MEASUREMENT),
        *_legend(machines, colours),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class _Axis:
    """Both axes: powers of ten from first to last."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def x(self, exponent: float) -> float:
        """Place of a power of ten from the left."""
        return _LEFT + _SIDE * (exponent - self.first) / (self.last - self.first)

    def y(self, exponent: float) -> float:
        """Place of a power of ten from the top."""
        return _TOP + _SIDE * (self.last - exponent) / (self.last - self.first)

    def grid(self) -> Iterator[str]:
        """Lines, their labels and the titles."""
        for exponent in range(self.first, self.last + 1):
            x, y = self.x(exponent), self.y(exponent)
            yield f'<path d="M{x:.1f} {_TOP}v{_SIDE}M{_LEFT} {y:.1f}h{_SIDE}" stroke="{LINE}"/>'
            label = f'10<tspan dy="-5" font-size="9">{exponent}</tspan>'
            yield f'<text x="{x:.1f}" y="{_TOP + _SIDE + 18}" text-anchor="middle" fill="{MUTED}">{label}</text>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">{label}</text>'
        yield text_at(_LEFT + _SIDE / 2, _TOP + _SIDE + 44, "published, in the unit it was published in", "middle")
        yield text_at(_LEFT, _TOP - 14, "predicted, in the same unit", "start")

    def band(self) -> Iterator[str]:
        """Equality and 30 % to both sides."""
        ends = (self.first, self.last)
        yield _line(self.x(ends[0]), self.y(ends[0]), self.x(ends[1]), self.y(ends[1]), INK)
        span = self.last - self.first
        shift = _SIDE * _BAND / span
        for sign in (-1, 1):
            x0, y0, x1, y1 = self.x(ends[0]), self.y(ends[0]), self.x(ends[1]), self.y(ends[1])
            if sign > 0:
                yield _line(x0, y0 - shift, x1 - shift, y1, MUTED, dashed=True)
            else:
                yield _line(x0 + shift, y0, x1, y1 + shift, MUTED, dashed=True)

    def dot(self, part: Compared, colour: str, radius: int) -> str:
        """One row, with its name to hover over."""
        x, y = self.x(log10(float(part.row.published))), self.y(log10(part.prediction.predicted))
        title = escape(f"{part.row.row}: {part.ratio:.2f}")
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.75">'
        return f"{shape}<title>{title}</title></circle>"


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{colour}" fill="none"{dash}/>'


def text_at(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    """An element of SVG."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _legend(machines: Sequence[str], colours: dict[str, str]) -> Iterator[str]:
    x = _LEFT + _SIDE + 24
    entries = [*((machine, colours[machine]) for machine in machines), ("estimators, formulas", GREY)]
    for number, (name, colour) in enumerate(entries):
        y = _TOP + 14 + 22 * number
        yield f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{colour}"/>'
        yield text_at(x + 14, y, name, "start")
    yield text_at(x - 5, _TOP + 30 + 22 * len(entries), "dashed: 30 % off", "start")
