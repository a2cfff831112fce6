"""Which files of a folder are images, in an order that no file system changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".gif")
"""Formats that Pillow decodes by itself; one that calls another program (EPS) is never opened."""


def walk(folder: Path) -> Iterator[Path]:
    """Every image under ``folder``, in no fixed order; hidden files are left out, links are followed once.

    Raises:
        OSError: a folder cannot be listed.
    """
    seen: set[tuple[int, int]] = set()

    def stop(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(place, name)


def first_image(folder: Path) -> Path | None:
    """Any image under ``folder``, found without listing all of it."""
    return next(walk(folder), None)


def images_in(folder: Path) -> list[Path]:
    """Every image under ``folder``, sorted by its POSIX path relative to it."""
    return sorted(walk(folder), key=lambda path: path.relative_to(folder).as_posix())


def evenly(count: int, samples: int | None) -> range | list[int]:
    """At most ``samples`` positions of ``count``, evenly spaced and always the same ones."""
    if samples is None or samples >= count:
        return range(count)
    return [index * count // samples for index in range(samples)]
