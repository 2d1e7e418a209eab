"""CSV files as they are found: packed or not, with or without a byte order mark."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from costroute_rt.error import LabelError, Reason


@contextmanager
def opened(path: Path, missing: str, reason: Reason | None = None) -> Iterator[Iterator[str]]:
    """The lines of a text file, unpacked where it is .gz; whatever goes wrong with it is a LabelError.

    missing: what to do where there is no such file. reason: of that error.
    """
    try:
        with open(path, "rb") as file:
            packed = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            yield io.TextIOWrapper(packed, encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise LabelError(path, "there is no such file", missing, reason=reason) from error
    except UnicodeDecodeError as error:
        raise LabelError(path, "it is not text in UTF-8", "save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise LabelError(path, f"it is no whole .gz file: {error}", "copy it again") from error
    except OSError as error:
        raise LabelError(path, f"it cannot be read: {error.strerror or error}", "check the path and its permissions") from error
