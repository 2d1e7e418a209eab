"""What a safetensors file says about itself besides its tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from costroute_rt.engines.bundle.json_bound import check_json_size
from costroute_rt.error import BundleError
from costroute_rt.regular_file import open_regular

_MOST_BYTES, _MOST_VALUES = 16 << 20, 3_000_000


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header's `__metadata__`, empty if there are none; raises BundleError for what is no safetensors file."""
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MOST_BYTES:
                raise ValueError(f"its header is larger than {_MOST_BYTES >> 20} MiB")
            data = file.read(length)
        check_json_size(data, _MOST_VALUES)
        header = json.loads(data)
        found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    except (OSError, struct.error, ValueError, RecursionError) as error:
        raise BundleError(path, f"it is not a safetensors file: {error}", "download it again") from error
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}
