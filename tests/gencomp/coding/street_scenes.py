"""Label maps made by code that look like those of streets and rooms: polygons, poles, objects."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw


def street(seed: int, height: int = 256, width: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """A label map with 19 classes, uint8, and its instance map (label · 1000 + number), uint16."""
    generator = np.random.default_rng(seed)
    labels, instances = Image.new("L", (width, height), 10), Image.new("I;16", (width, height), 10)
    numbers: dict[int, int] = {}

    def draw(label: int, points: list[tuple[float, float]], thing: bool = False) -> None:
        number = numbers[label] = numbers.get(label, -1) + 1
        ImageDraw.Draw(labels).polygon(points, fill=label)
        ImageDraw.Draw(instances).polygon(points, fill=1000 * label + number if thing else label)

    horizon = height * generator.uniform(0.4, 0.55)
    draw(8, [(0, horizon), *_ridge(generator, width, horizon - height / 5), (width, horizon)])
    for _ in range(8):
        left, wide, top = generator.uniform((0, 30, 10), (width, 120, horizon))
        roof = top + generator.uniform(-15, 15)
        draw(2, [(left, horizon), (left, top), (left + wide, roof), (left + wide, horizon)])
    draw(0, [(0, horizon), (width, horizon), (width, height), (0, height)])
    for side in (0, width):
        reach = generator.uniform(0.1, 0.45) * width
        draw(
            1, [(side, height), (abs(side - reach), height), (width / 2, horizon), (side, horizon)]
        )
    for label in generator.choice([11, 12, 13, 17, 18], 10):
        middle, foot = generator.uniform((0, horizon), (width, height))
        size = (foot - horizon) / 3 + 5
        draw(int(label), _blob(generator, middle, foot - size, size), thing=True)
    for _ in range(6):
        x, top, thick = generator.uniform((0, 10, 1), (width, horizon, 3))
        slant = generator.uniform(-3, 3)
        foot = horizon + generator.uniform(5, 60)
        draw(5, [(x, top), (x + thick, top), (x + slant + thick, foot), (x + slant, foot)])
        draw(6, [(x - 8, top), (x + 8, top), (x + 8, top + 10), (x - 8, top + 10)], thing=True)
    return np.asarray(labels), np.asarray(instances).astype(np.uint16)


def room(seed: int, height: int = 320, width: int = 384) -> np.ndarray:
    """A label map of rectangles in perspective and rounded things, with 151 classes, uint8."""
    generator = np.random.default_rng(seed)
    labels = Image.new("L", (width, height), 1)
    draw = ImageDraw.Draw(labels)
    corner = generator.uniform((0.2, 0.5), (0.8, 0.7)) * (width, height)
    draw.polygon([(0, height), tuple(corner), (width, height * 0.9), (width, height)], fill=4)
    draw.polygon([(0, 0), (width, 0), (width, 20), (corner[0], 40), (0, 25)], fill=6)
    for label in generator.choice(np.arange(7, 151), 14, replace=False).tolist():
        x, y = generator.uniform((0, 30), (width, height))
        wide, high = generator.uniform(10, 90, 2)
        if generator.random() < 0.5:
            tilt = generator.uniform(-0.3, 0.3) * wide
            draw.polygon([(x, y), (x + wide, y + tilt), (x + wide, y + high), (x, y + high)], label)
        else:
            draw.polygon(_blob(generator, x, y, wide / 2), fill=label)
    return np.asarray(labels)


def _ridge(generator: np.random.Generator, width: int, level: float) -> list[tuple[float, float]]:
    heights = level + np.cumsum(generator.normal(0, 4, width // 8 + 1))
    return [(8.0 * place, float(height)) for place, height in enumerate(heights)]


def _blob(
    generator: np.random.Generator, x: float, y: float, size: float
) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = np.full(40, size)
    for order in (2, 3, 5):
        radii += (
            size
            * generator.uniform(0, 0.4 / order)
            * np.cos(order * angles + generator.uniform(0, 6))
        )
    return [(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
