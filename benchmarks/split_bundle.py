"""Splits a bundle into one bundle per denoiser: independent models, as far as anybody who routes between them can tell.

python -m benchmarks.split_bundle BUNDLE FOLDER
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.manifest import ROUTER_GRAPHS


def split_bundle(source: Path, folder: Path) -> list[Path]:
    """Writes `folder`/DENOISER for each denoiser of the bundle's pool: its candidates, and every file that they need (hard links)."""
    bundle = Bundle.open(source, verify=False)
    denoisers = dict.fromkeys(str(row["denoiser"]) for row in bundle.pool)
    return [_write_part(bundle, name, folder / name) for name in denoisers]


def _write_part(bundle: Bundle, denoiser: str, target: Path) -> Path:
    manifest = bundle.read_manifest()
    own = {
        name: part
        for name, part in manifest["components"].items()
        if part["role"] not in ROUTER_GRAPHS and (part["role"] != "denoiser" or name == denoiser)
    }
    graphs = {path for part in own.values() for path in part["graphs"].values()}
    rows = [row for row in manifest["pool"] if row["denoiser"] == denoiser]
    means = {row["name"]: manifest["quality"]["candidates"][row["name"]] for row in rows}
    part: dict[str, Any] = {
        **{key: value for key, value in manifest.items() if key not in ("format", "format_version", "files")},
        "components": own,
        "graphs": {path: spec for path, spec in manifest["graphs"].items() if path in graphs},
        "pool": rows,
        "quality": {**manifest["quality"], "candidates": means},
        "router": None,
    }
    weights = {path for each in own.values() for path in each.get("weights") or ()}
    for name in (*graphs, *weights, *(spec["file"] for spec in manifest["tokenizers"].values())):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _link(bundle.path(name), target / name)
    return seal_bundle(target, part).root


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    for path in split_bundle(args.bundle, args.folder):
        print(path)


if __name__ == "__main__":
    main()
