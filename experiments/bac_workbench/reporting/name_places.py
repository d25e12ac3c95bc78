"""Where the names of points stand in a picture, so that they cover neither each other nor a point or its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bac.drawing import lay_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT_SIZE = 8
GAP, LINE = 4, 11  # points between a name and its point, and from one line to the next
MARKER, WHISKER = 6, 3  # half of the width of what is drawn, in points
LINES = 4  # above and below a point
#: a name outside of the axes costs as much as one that lies on so many square points of others
OUTSIDE = 1e6


@dataclass(frozen=True)
class Named:
    """A point, its interval (low, high) and its name."""

    x: float
    y: float
    low: float
    high: float
    name: str
    colour: str


@dataclass(frozen=True)
class Box:
    """A rectangle in points."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: Box) -> float:
        """The area of what both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def inside(self, other: Box) -> bool:
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )


@dataclass(frozen=True)
class Place:
    """Where a name begins: an offset in points from the middle of its point, and its alignment."""

    dx: float
    dy: float
    across: str  # left, center or right
    down: str  # bottom, center or top


def places(below: float, above: float) -> list[Place]:
    """Those that are tried, the best ones first; a point reaches so far below and above its middle."""
    tried = [
        Place(0, above + GAP, "center", "bottom"),
        Place(0, -below - GAP, "center", "top"),
        Place(MARKER + GAP, 0, "left", "center"),
        Place(-MARKER - GAP, 0, "right", "center"),
    ]
    for line in range(1, LINES):
        tried.append(Place(0, above + GAP + line * LINE, "center", "bottom"))
        tried.append(Place(0, -below - GAP - line * LINE, "center", "top"))
    return tried


def write_names(axis: Axes, points: Sequence[Named]) -> None:
    """Writes each name at the first of its places that is free, or the one that covers least."""
    figure: Any = axis.figure
    lay_out(figure)  # what follows depends on where the axes are
    scale = 72 / figure.dpi
    renderer = figure.canvas.get_renderer()

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = axis.transData.transform((x, y)) * scale
        return float(across), float(up)

    def box_of(extent: Any) -> Box:
        return Box(extent.x0 * scale, extent.y0 * scale, extent.x1 * scale, extent.y1 * scale)

    whole, legend = box_of(axis.get_window_extent(renderer)), axis.get_legend()
    taken = [] if legend is None else [box_of(legend.get_window_extent(renderer))]
    reach = []  # of each point below and above its middle
    for point in points:
        (x, y), (_, low), (_, high) = at(point.x, point.y), at(point.x, point.low), at(point.x, point.high)
        taken += [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER), Box(x - WHISKER, low, x + WHISKER, high)]
        reach.append((max(y - low, MARKER), max(high - y, MARKER)))
    for point, (below, above) in zip(points, reach):
        written = axis.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=FONT_SIZE, color=point.colour
        )
        size = box_of(written.get_window_extent(renderer))
        tried = places(below, above)
        boxes = [_box(at(point.x, point.y), place, size) for place in tried]
        costs = [sum(map(box.shared, taken)) + (0.0 if box.inside(whole) else OUTSIDE) for box in boxes]
        best = costs.index(min(costs))
        written.set_position((tried[best].dx, tried[best].dy))
        written.set(ha=tried[best].across, va=tried[best].down)
        taken.append(boxes[best])


def _box(middle: tuple[float, float], place: Place, size: Box) -> Box:
    """That of a name as large as `size`."""
    shares = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
    width, height = size.right - size.left, size.top - size.bottom
    left = middle[0] + place.dx - shares[place.across] * width
    bottom = middle[1] + place.dy - shares[place.down] * height
    return Box(left, bottom, left + width, bottom + height)
