"""Opening CSV files: compressed or not, with or without a byte order mark."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from costroute_rt.error import LabelError, Reason


@contextmanager
def opened(path: Path, missing: str, reason: Reason | None = None) -> Iterator[Iterator[str]]:
    """The lines of a text file, decompressed if its name ends in .gz; every failure is a LabelError.

    missing: the remedy if the file does not exist. reason: of that error.
    """
    try:
        with open(path, "rb") as file:
            plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            yield io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise LabelError(path, "it does not exist", missing, reason=reason) from error
    except UnicodeDecodeError as error:
        raise LabelError(path, "it is not text in UTF-8", "save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise LabelError(path, f"it is not a complete .gz file: {error}", "copy it again") from error
    except OSError as error:
        raise LabelError(path, f"it cannot be read: {error.strerror or error}", "check the path and its permissions") from error
