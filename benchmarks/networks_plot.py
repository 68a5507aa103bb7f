"""The plot of docs/networks.md: accuracies as printed against cycles as counted here, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from validation_plot import text_at

from codesign.report.figures import BLUE, FONT, GREY, LINE, MUTED
from codesign.search.results import front_of

_WIDTH, _HEIGHT, _LEFT, _TOP = 820, 460, 60, 40
_STEP_PERCENT = 5
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Point:
    """A network: cycles of one image, and the accuracy a paper prints for it."""

    network: str
    cycles: int
    top1_percent: float


def plot(points: Sequence[Point], machine: str) -> str:
    """Every network as a dot with its name to hover over; those of the frontier are joined and named."""
    axes = _Axes(points)
    first = front_of(points, lambda point: point.cycles, lambda point: point.top1_percent)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 90} {_TOP + _HEIGHT + 60}"'
        f' font-family="{escape(FONT)}" font-size="13">',
        f'<rect width="{_LEFT + _WIDTH + 90}" height="{_TOP + _HEIGHT + 60}" fill="white"/>',
        *axes.grid(machine),
        *(axes.dot(point, GREY, 4) for point in points if point not in first),
        axes.path(first),
        *(axes.dot(point, BLUE, 5) for point in first),
        *(axes.name(point) for point in first),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


class _Axes:
    """Cycles logarithmic to the right, percent upwards."""

    def __init__(self, points: Sequence[Point]) -> None:
        exponents = [log10(point.cycles) for point in points]
        self.first, self.last = floor(min(exponents)), ceil(max(exponents))
        percents = [point.top1_percent for point in points]
        self.low = _STEP_PERCENT * floor(min(percents) / _STEP_PERCENT)
        self.high = _STEP_PERCENT * ceil(max(percents) / _STEP_PERCENT)

    def place(self, cycles: float, percent: float) -> tuple[float, float]:
        """From the left and from the top."""
        x = _LEFT + _WIDTH * (log10(cycles) - self.first) / (self.last - self.first)
        return x, _TOP + _HEIGHT * (self.high - percent) / (self.high - self.low)

    def grid(self, machine: str) -> Iterator[str]:
        """Lines, their labels and the titles."""
        for exponent in range(self.first, self.last):
            for step in _STEPS:
                x, _ = self.place(step * 10**exponent, self.low)
                yield f'<path d="M{x:.1f} {_TOP}v{_HEIGHT}" stroke="{LINE}"/>'
                yield text_at(x, _TOP + _HEIGHT + 18, f"{step * 10**exponent / 1e6:g}", "middle", MUTED)
        for percent in range(self.low, self.high + 1, _STEP_PERCENT):
            _, y = self.place(10**self.first, percent)
            yield f'<path d="M{_LEFT} {y:.1f}h{_WIDTH}" stroke="{LINE}"/>'
            yield text_at(_LEFT - 8, y + 4, str(percent), "end", MUTED)
        yield text_at(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 44, f"million cycles an image on {machine}", "middle")
        yield text_at(_LEFT - 30, _TOP - 16, "top-1 accuracy in percent, as printed in the papers", "start")

    def dot(self, point: Point, colour: str, radius: int) -> str:
        x, y = self.place(point.cycles, point.top1_percent)
        title = escape(f"{point.network}: {point.top1_percent} % as printed, {point.cycles / 1e6:.3g} M cycles")
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"><title>{title}</title></circle>'

    def path(self, points: Sequence[Point]) -> str:
        places = [self.place(point.cycles, point.top1_percent) for point in points]
        steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        return f'<path d="M{steps}" stroke="{BLUE}" fill="none"/>'

    def name(self, point: Point) -> str:
        x, y = self.place(point.cycles, point.top1_percent)
        return text_at(x - 8, y - 6, point.network, "end")
