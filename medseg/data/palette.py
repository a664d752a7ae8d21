"""Masks painted in colours: each colour of a palette is a label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.errors import ConfigError, DataError
from medseg.labels import BACKGROUND
from medseg.storage import whole_file
from medseg.storage.limits import OutOfLimits, read_text
from medseg.transforms.picture import as_image, has_deep_colours

__all__ = ["read_palette", "write_label_values"]

_COLOR = re.compile(r"#?([0-9a-fA-F]{6})")
_EXAMPLE = "such as polyp=#00FF00"


def read_palette(given: Mapping[str, str]) -> dict[str, int]:
    """Name -> colour as 0xRRGGBB, background first: that of this name, else black.

    Args:
        given: name -> ``#RRGGBB``; or a file of lines ``NAME=#RRGGBB``, by its name alone.

    Raises:
        ConfigError: a file is missing, a colour cannot be read, or two names have one colour.
    """
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name != value:
            texts[name] = value
            continue
        try:
            lines = [line.strip() for line in read_text(Path(value)).splitlines()]
        except (OSError, OutOfLimits) as error:
            raise ConfigError(
                f"--palette {value} cannot be read; expected NAME=#RRGGBB, {_EXAMPLE}, or a text file of such lines."
            ) from error
        texts |= {name.strip(): color for name, _, color in (line.partition("=") for line in lines if line)}
    colors: dict[str, int] = {}
    for name, text in texts.items():
        match = _COLOR.fullmatch(text.strip())
        if match is None or not name:
            raise ConfigError(f"--palette: '{name}={text}' is not a valid colour; expected NAME=#RRGGBB, {_EXAMPLE}.")
        color = int(match[1], 16)
        if twin := next((other for other, same in colors.items() if same == color), None):
            raise ConfigError(f"--palette: '{twin}' and '{name}' have one colour, #{color:06X}; give each its own.")
        colors[name] = color
    if BACKGROUND not in colors and 0 in colors.values():
        raise ConfigError(f"--palette names no {BACKGROUND}, which is black then; name it, {BACKGROUND}=#RRGGBB.")
    return {BACKGROUND: colors.pop(BACKGROUND, 0), **colors}


def write_label_values(mask: Path, palette: Mapping[str, int], target: Path) -> None:
    """Write a painted mask as an index PNG ``0, 1, …`` in the palette's order; camera orientation is applied.

    Raises:
        DataError: it has colours that the palette lacks, or 16 bits per colour.
    """
    with Image.open(mask) as picture:
        deep = has_deep_colours(picture)
        shown = as_image(picture)
        if deep or shown.mode not in ("L", "RGB"):
            raise DataError(f"{mask} has more than 8 bits per colour; 8 are expected. Save it with 8 bits.")
        red, green, blue = np.moveaxis(np.asarray(shown.convert("RGB")).astype(np.int32), -1, 0)
    painted = red << 16 | green << 8 | blue
    labels = np.full(painted.shape, -1, np.int32)
    for value, color in enumerate(palette.values()):
        labels[painted == color] = value
    if (labels < 0).any():
        _refuse(mask, painted[labels < 0], palette)
    with whole_file(target) as temporary:
        Image.fromarray(labels.astype(np.uint8 if len(palette) < 256 else np.uint16)).save(temporary, "PNG")


def _refuse(mask: Path, unknown: np.ndarray, palette: Mapping[str, int]) -> None:
    colors, counts = np.unique(unknown, return_counts=True)
    color = int(colors[np.argmax(counts)])
    near = min(palette, key=lambda name: _distance(palette[name], color))
    remedy = (
        "JPEG changes colours: save the masks as PNG."
        if mask.suffix.lower() in (".jpg", ".jpeg")
        else "Add the colour to --palette, or fix the mask."
    )
    several = "" if len(colors) == 1 else "s"
    raise DataError(
        f"{mask} has {len(unknown)} pixels in {len(colors)} colour{several} that the palette lacks, most of them "
        f"#{color:06X} ({counts.max()} pixels; nearest: {near} #{palette[near]:06X}); only its colours are expected. "
        f"{remedy}"
    )


def _distance(one: int, other: int) -> int:
    return sum(((one >> shift & 255) - (other >> shift & 255)) ** 2 for shift in (16, 8, 0))
