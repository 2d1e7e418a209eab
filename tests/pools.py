"""Pools of tiny bundles for tests: `tiny`, `other` with other weights and sizes, and a second bundle of the family `tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.pool_making import combine
from costroute_rt.routing.pool_writing import write_pool
from tests.changed_bundle import change_bundle
from tests.tiny_bundle import write_tiny_bundle


def write_other_bundle(folder: Path, hidden: int = 64) -> Path:
    """A bundle of the family `other`, licensed as MIT, with images of 64x64 and 32x32 only; its first candidate is called tiny-turbo@1."""

    def change(manifest: dict[str, Any], _: Path) -> None:
        manifest |= {"family": "other", "revision": "9", "license": "MIT"}
        for row in manifest["pool"][1:]:
            row["name"] = row["name"].replace("tiny", "other")
        means = (0.5, 0.6, 0.8, 0.95)
        names = [row["name"] for row in manifest["pool"]]
        manifest["quality"]["candidates"] = {name: {"mean": mean, "standard_error": 0.02} for name, mean in zip(names, means, strict=True)}
        manifest["image"] |= {"sizes": [[64, 64], [32, 32]], "any_size": False}

    write_tiny_bundle(folder / "seed1", seed=1, hidden=hidden)
    return change_bundle(folder / "seed1", folder / "other", change).root


def write_twin_bundle(tiny: Path, folder: Path) -> Path:
    """A second bundle of the family `tiny`: the same files, with one candidate of its own name."""

    def change(manifest: dict[str, Any], _: Path) -> None:
        manifest["revision"] = "twin"
        manifest["pool"] = [{**row, "name": "twin@2", "num_inference_steps": 2} for row in manifest["pool"] if row["name"] == "tiny-base@4"]
        manifest["quality"]["candidates"] = {"twin@2": {"mean": 0.3, "standard_error": 0.01}}

    return change_bundle(tiny, folder / "twin", change).root


def write_pool_of(target: Path, *bundles: Path, **options: Any) -> Pool:
    """A pool of these bundles at `target`; options: as `combine` takes them."""
    return write_pool(combine([Bundle.open(each, verify=False) for each in bundles], **options), target, force=False)
