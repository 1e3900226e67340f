"""Image files, which count as videos of one frame."""

from __future__ import annotations

import numpy as np

from avsc_e2e.data.media.source import boundary, fitted


def image_size(path: str) -> tuple[int, int]:
    """Width and height as shown (after rotation), from the header. Raises MediaError."""
    from PIL import Image

    with boundary(path, "is not an image that can be read"), Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def read_image(path: str, short_side: int | None = None) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, upright, with a shorter side of `short_side` pixels. Raises MediaError."""
    from PIL import Image, ImageOps

    with boundary(path, "is not an image that can be read"), Image.open(path) as image:
        if image.mode.startswith(("I", "F")):  # 16-bit grey, which PIL would clip to 255
            levels = np.asarray(image, np.float32)
            scale = 255 / 65535 if image.mode.startswith("I") else 255.0
            grey = Image.fromarray((levels * scale).round().clip(0, 255).astype(np.uint8))
            upright = ImageOps.exif_transpose(grey).convert("RGB")
        else:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize(fitted(*upright.size, short_side), Image.Resampling.BILINEAR))
