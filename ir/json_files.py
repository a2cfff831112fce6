"""JSON files that edgec wrote, read again: they may have been cut off, changed or put there by somebody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgec.ir.errors import InputError

# No file that edgec writes comes near it.
_MOST_BYTES = 64 << 20


def read_object(path: Path, fix: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        fix: what the user can do where it is none.

    Raises:
        InputError: it cannot be read, is larger than any that edgec writes, or holds no JSON object.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(str(path), f"holds more than {_MOST_BYTES >> 20} MiB: edgec did not write it", fix)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot be read ({(error.strerror or 'unknown reason').lower()})"
        raise InputError(str(path), what, fix) from None
    except (ValueError, RecursionError):
        raise InputError(str(path), "is no JSON, or was cut off", fix) from None
    if not isinstance(value, dict):
        raise InputError(str(path), "holds no JSON object: edgec did not write it", fix)
    return value
