"""Pools: what is in their file, and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Bundle, BundleError, ConfigError
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.pool_making import combine
from tests.changed_bundle import change_bundle
from tests.pools import write_pool_of

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(pool_folder: Path, tmp_path: Path) -> Path:
    """The pool's folder, to break; its bundles are named by their absolute paths."""
    target = tmp_path / "desk.pool"
    shutil.copytree(pool_folder, target)
    return target


def rewrite(folder: Path, change: Change) -> Path:
    file = folder / "pool.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def test_candidates_of_one_metric_are_in_the_order_of_their_means(pool_folder: Path) -> None:
    pool = Pool.open(pool_folder)
    means = [each.mean for each in pool.candidates]
    assert (pool.metric, means) == ("scorer", sorted(means, reverse=True))
    assert pool.names()[:3] == ["other-base@8", "tiny-base@8", "tiny-base@4"]


def test_a_second_bundle_of_a_family_and_a_name_that_is_taken(pool_folder: Path) -> None:
    pool = Pool.open(pool_folder)
    assert {name: bundle.family for name, bundle in pool.bundles.items()} == {"tiny": "tiny", "other": "other", "tiny-2": "tiny"}
    found = {each.name: (each.bundle, each.candidate) for each in pool.candidates}
    assert (found["tiny-turbo@1"], found["other/tiny-turbo@1"]) == (("tiny", "tiny-turbo@1"), ("other", "tiny-turbo@1"))
    assert [row["name"] for row in pool.bundles["other"].pool][-1] == "other/tiny-turbo@1"


def test_bundles_of_different_metrics_are_preferred_in_their_order(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    other = change_bundle(other_bundle, tmp_path / "other", lambda manifest, _: manifest["quality"].update(metric="prior"))
    names = ["other-base@8", "other-base@4", "other-turbo@2", "tiny-turbo@1", "tiny-base@8"]
    pool = write_pool_of(tmp_path / "pool", other.root, tiny_bundle)
    assert (pool.metric, pool.names()[:5]) == ("order", names)
    assert [each.mean for each in pool.candidates[:2]] == [1.0, 0.875]
    again = write_pool_of(tmp_path / "again", other.root, tiny_bundle, prefer=["tiny-base@4"], exclude=["other-base@8"])
    assert again.names()[:3] == ["tiny-base@4", "other-base@4", "other-turbo@2"]


def test_a_preference_is_an_order(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    pool = write_pool_of(tmp_path / "pool", tiny_bundle, other_bundle, prefer=["tiny-turbo@2"], licenses=["apache-2.0"])
    assert (pool.metric, pool.names()) == ("order", ["tiny-turbo@2", "tiny-base@8", "tiny-base@4", "tiny-turbo@1"])
    assert list(pool.bundles) == ["tiny"]


def test_a_pool_and_its_bundles_can_be_moved_together(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "here" / "tiny")
    write_pool_of(tmp_path / "here" / "desk.pool", tmp_path / "here" / "tiny")
    os.rename(tmp_path / "here", tmp_path / "there")
    assert Pool.open(tmp_path / "there" / "desk.pool").bundles["tiny"].root == tmp_path / "there" / "tiny"


def test_candidates_without_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    pool = write_pool_of(tmp_path / "pool", tiny_bundle, others={"Imagen 3": 900.0, "Muse": None})
    found = {each.name: (each.bundle, each.cost_ms) for each in pool.candidates if each.bundle is None}
    assert found == {"Imagen 3": (None, 900.0), "Muse": (None, None)}
    assert pool.rows[-1] == {"name": "Muse", **dict.fromkeys(("denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder"))}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"candidates": ["sdxl@8"]}, "sdxl@8"),
        ({"exclude": ["sdxl@8"]}, "sdxl@8"),
        ({"licenses": ["gpl-3.0"]}, "Apache-2.0, MIT"),
        ({"candidates": ["tiny-base@8"], "exclude": ["tiny-base@8"]}, "fewer"),
    ],
)
def test_a_choice_that_is_unknown_or_leaves_nothing_is_refused(pool_folder: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Pool.open(pool_folder).select(**options)


def test_no_bundle_is_there_twice(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    with pytest.raises(ConfigError, match="each bundle once"):
        combine([bundle, bundle])


def test_a_bundle_that_changed_since_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "tiny")
    write_pool_of(tmp_path / "pool", tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny")
    change_bundle(tiny_bundle, tmp_path / "tiny", lambda manifest, _: manifest.update(revision="2"))
    with pytest.raises(BundleError, match="was changed since"):
        Pool.open(tmp_path / "pool")


def cut(content: dict[str, Any]) -> None:
    content["candidates"] = []


WRONG: dict[str, Change] = {
    "format": lambda content: content.update(format="costroute-bundle"),
    "format version 2": lambda content: content.update(format_version=2),
    "bundles": lambda content: content.update(bundles={}),
    "names a bundle twice": lambda content: content["bundles"].append(content["bundles"][0]),
    "'router'": lambda content: content["bundles"][0].update(name="router"),
    "manifest_sha256": lambda content: content["bundles"][0].update(manifest_sha256="0"),
    "path": lambda content: content["bundles"][0].update(path=3),
    "candidates is empty": cut,
    "holds a candidate twice": lambda content: content["candidates"].append(content["candidates"][0]),
    "not among its bundles": lambda content: content["candidates"][0].update(bundle="x"),
    "it has only": lambda content: content["candidates"][0].update(candidate="x@1"),
    "mean": lambda content: content["candidates"][0].update(mean="high"),
    "letters, digits": lambda content: content["candidates"][0].update(name="a\nb"),
    "stays inside": lambda content: content.update(files={"../x": {"sha256": "0" * 64, "bytes": 1}}),
    "not among its files": lambda content: content.update(router={"file": "router/router.json", "arrays": "a"}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused_with_the_reason(copy: Path, what: str) -> None:
    with pytest.raises(BundleError) as caught:
        Pool.open(rewrite(copy, WRONG[what]))
    assert what in str(caught.value) or (what == "letters, digits" and "plain text" in str(caught.value))


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of the file is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*before, key)
        yield from places(each, (*before, key))


def test_values_of_other_types_are_refused_or_make_no_difference(copy: Path) -> None:
    file = copy / "pool.json"
    whole = json.loads(file.read_text())
    every, rng = list(places(whole)), random.Random(0)
    refused = []
    for _ in range(200):
        content = json.loads(json.dumps(whole))
        *path, last = rng.choice(every)
        reduce(lambda inner, key: inner[key], path, content)[last] = rng.choice(
            (None, -1, 1.5, True, [], ["x"], {}, "", "../x", 1e308, 2**70)
        )
        file.write_text(json.dumps(content))
        try:
            Pool.open(copy)
        except BundleError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in each for each in refused)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(copy: Path, data: bytes) -> None:
    (copy / "pool.json").write_bytes(data)
    with pytest.raises(BundleError, match=r"valid JSON|expected an object"):
        Pool.open(copy)


def test_what_is_no_pool_is_refused_by_name(tiny_bundle: Path, pool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="it is a bundle"):
        Pool.open(tiny_bundle)
    with pytest.raises(BundleError, match="no pool exists"):
        Pool.open(tmp_path / "missing")
    with pytest.raises(BundleError, match="needs this file"):
        Pool.open(tmp_path)
    with pytest.raises(BundleError, match="it is a pool"):
        Bundle.open(pool_folder)
    with pytest.raises(ConfigError, match="pool"):
        Pool.open(3)  # type: ignore[arg-type]
    assert Pool.open(pool_folder / "pool.json").root == pool_folder
