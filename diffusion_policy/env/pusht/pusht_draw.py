"""Drawing of Push-T: the pixels of the original's image observations and of its demonstrations.

The scene is drawn at 512 x 512 px with pygame and resized, so the exact pixels depend on pygame's primitives and on
OpenCV's bilinear resize: the demonstrations' images come out exactly with pygame up to 2.5.2, while pygame 2.6 fills
the edges of polygons slightly differently. pymunk's own debug drawing visits the shapes; it also fixes their order and
marks the current contact points.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.pusht.definition import TABLE_SIZE

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
pymunk = import_extra("pymunk", "pusht")
pygame = import_extra("pygame", "pusht")
cv2 = import_extra("cv2", "pusht")

BACKGROUND_COLOR = (255, 255, 255)
GOAL_COLOR = (144, 238, 144)  # LightGreen
ACTION_COLOR = (255, 0, 0)
OUTLINE_RADIUS = 2  # px
AGENT_RIM = 4  # px


def draw_scene(space: pymunk.Space, goal_vertices: Sequence[Sequence[tuple[float, float]]], size: int) -> np.ndarray:
    """Draw goal (polygons with corners in px) and everything in `space`. Returns uint8 RGB [size, size, 3]."""
    canvas = pygame.Surface((TABLE_SIZE, TABLE_SIZE))
    canvas.fill(BACKGROUND_COLOR)
    for polygon in goal_vertices:
        pygame.draw.polygon(canvas, GOAL_COLOR, [_pixel(v) for v in polygon])
    space.debug_draw(_SceneDrawing(canvas))
    pixels = np.ascontiguousarray(pygame.surfarray.array3d(canvas).transpose(1, 0, 2))  # [x, y, 3] -> [H, W, 3]
    return cv2.resize(pixels, (size, size))


def draw_action(frame: np.ndarray, action: np.ndarray) -> None:
    """Mark `action` [2] (px on the table) with a red cross in `frame` [H, H, 3], in place."""
    size = frame.shape[0]
    x, y = (np.asarray(action) / TABLE_SIZE * size).astype(np.int32).tolist()
    cv2.drawMarker(
        frame,
        (x, y),
        color=ACTION_COLOR,
        markerType=cv2.MARKER_CROSS,
        markerSize=max(1, int(8 / 96 * size)),
        thickness=max(1, int(1 / 96 * size)),
    )


class _SceneDrawing(pymunk.SpaceDebugDrawOptions):
    """Draws pymunk shapes with a light interior and a darker rim; pymunk calls the draw_* methods."""

    def __init__(self, canvas: pygame.Surface):
        super().__init__()
        self._canvas = canvas

    def draw_circle(self, pos, angle, radius, outline_color, fill_color):
        pygame.draw.circle(self._canvas, fill_color.as_int(), _pixel(pos), round(radius))
        pygame.draw.circle(self._canvas, _lighter(fill_color), _pixel(pos), round(radius - AGENT_RIM))

    def draw_segment(self, a, b, color):
        # Contact points: anti-aliased lines in pymunk's colour for them.
        pygame.draw.aaline(self._canvas, color.as_int(), _pixel(a), _pixel(b))

    def draw_fat_segment(self, a, b, radius, outline_color, fill_color):
        self._draw_band(_pixel(a), _pixel(b), radius, fill_color.as_int())

    def draw_polygon(self, verts, radius, outline_color, fill_color):
        corners = [_pixel(v) for v in verts]
        pygame.draw.polygon(self._canvas, _lighter(fill_color), corners)
        for start, end in zip(corners, corners[1:] + corners[:1]):
            self._draw_band(start, end, OUTLINE_RADIUS, fill_color.as_int())

    def draw_dot(self, size, pos, color):
        pygame.draw.circle(self._canvas, color.as_int(), _pixel(pos), round(size))

    def _draw_band(self, start: tuple[int, int], end: tuple[int, int], radius: float, color: tuple[int, ...]) -> None:
        """A line with round ends. Pixel-exactness with the demonstrations' images needs all of its layers."""
        width = round(max(1, 2 * radius))
        pygame.draw.line(self._canvas, color, start, end, width)
        if width <= 2 or start == end:
            return
        rise, run = abs(end[1] - start[1]), abs(end[0] - start[0])  # unsigned, also for lines that climb
        scale = radius / (rise**2 + run**2) ** 0.5
        dx, dy = round(rise * scale), round(run * scale)
        pygame.draw.polygon(
            self._canvas,
            color,
            [
                (start[0] - dx, start[1] - dy),
                (start[0] + dx, start[1] + dy),
                (end[0] + dx, end[1] + dy),
                (end[0] - dx, end[1] - dy),
            ],
        )
        pygame.draw.circle(self._canvas, color, start, round(radius))
        pygame.draw.circle(self._canvas, color, end, round(radius))


def _pixel(point: Sequence[float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _lighter(color) -> tuple[int, ...]:
    return tuple(round(min(1.2 * channel, 255)) for channel in color.as_int())
