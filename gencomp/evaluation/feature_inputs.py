"""The inputs that feature networks take, and how images become such inputs; without torch."""

from __future__ import annotations

from typing import Literal, get_args

# Either uint8 images as they are, or float32 images on [−1, 1] at 299×299 pixels.
Input = Literal["uint8", "signed-299"]
INPUTS: tuple[Input, ...] = get_args(Input)
RESIZE_RULES: dict[Input, str] = {
    "uint8": "uint8 at its own size; any resizing is inside the file",
    "signed-299": "float32 v/127.5 − 1, resized to 299×299 by torch's bilinear interpolation with"
    " antialiasing",
}
