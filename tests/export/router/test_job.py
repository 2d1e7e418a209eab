"""From files to files: fitting a bundle's router, and evaluating it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.error import LabelError, OutputError
from costroute_rt.export.router import job
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.job import Source, evaluate_bundle, fit_bundle, make_examples, time_router
from costroute_rt.export.router.tagging import split_tags
from costroute_rt.routing.router_bundle import open_router
from costroute_rt.routing.tagged_encoder import TaggedEncoder
from tests.export.router.label_text import write_labels

NAMES = ("tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8")


@pytest.fixture(scope="module")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def source(tmp_path: Path, engine_home: Path) -> Source:
    path = tmp_path / "labels.csv"
    path.write_text(write_labels(NAMES))
    return Source(labels=path, category="category", home=engine_home)


def test_a_fitted_bundle_holds_the_router_and_its_record(source: Source, tiny_bundle: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    router = fit_bundle(Bundle.open(tiny_bundle), source, tmp_path / "routed", encoder="states", say=messages.append)
    loaded = open_router(Bundle.open(tmp_path / "routed"))
    assert loaded.prompts == router.prompts
    assert loaded.record["labels"]["file"] == "labels.csv"
    assert loaded.record["labels"]["sha256"] == source.open(Pool.of_bundle(Bundle.open(tiny_bundle))).sha256
    assert loaded.record["cross_validation"]["leave_category_out"] is not None
    assert Bundle.open(tiny_bundle).router is None
    assert any(line.startswith("fold 1 of") for line in messages)


def test_an_output_that_exists_is_refused_before_the_labels_are_read(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        fit_bundle(Bundle.open(tiny_bundle), Source(labels="nothing.csv"), tmp_path)


def test_the_evaluated_router_is_the_loaded_one(source: Source, tiny_bundle: Path, tmp_path: Path) -> None:
    fit_bundle(Bundle.open(tiny_bundle), source, tmp_path / "routed", encoder="hashed")
    heldout = tmp_path / "heldout.csv"
    heldout.write_text(write_labels(NAMES, first=80, count=40))
    found = evaluate_bundle(Bundle.open(tmp_path / "routed"), Source(labels=heldout, home=source.home))
    router = open_router(Bundle.open(tmp_path / "routed"))
    predicted = {row["name"]: row["predicted"] for row in found.candidates}
    mean, _, _ = router.estimate(Source(labels=heldout).open(Pool.of_bundle(Bundle.open(tiny_bundle))).prompts, None)
    assert list(predicted.values()) == pytest.approx(mean.mean(0).tolist(), abs=1e-5)
    assert found.facts["router"]["prompts"] == 80
    assert found.router_ms is not None
    assert found.router_ms > 0


@pytest.mark.parametrize("name", ["hashed", "states"])
def test_tags_are_added_to_an_encoder_by_its_name(source: Source, tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    router = fit_bundle(Bundle.open(tiny_bundle), source, tmp_path / "routed", encoder=f"{name}+tags")
    assert isinstance(router.encoder, TaggedEncoder)
    assert router.encoder.inner.kind == name
    assert router.encoder.weight > 0
    assert open_router(Bundle.open(tmp_path / "routed")).encoder == router.encoder


def test_a_folder_may_be_named_like_tags(tmp_path: Path) -> None:
    (tmp_path / "model+tags").mkdir()
    assert split_tags(str(tmp_path / "model+tags")) == (str(tmp_path / "model+tags"), False)
    assert split_tags("states:sd15+tags") == ("states:sd15", True)


def test_labels_made_with_other_weights_are_refused(source: Source, tiny_bundle: Path, tmp_path: Path) -> None:
    text = Path(source.labels).read_text()
    head, *rows = text.splitlines()
    Path(source.labels).write_text("\n".join([f"{head},fingerprint", *(f"{row},0123456789ab" for row in rows)]) + "\n")
    with pytest.raises(LabelError, match=r"tiny-turbo@1, .* were made with other weights or settings"):
        fit_bundle(Bundle.open(tiny_bundle), source, tmp_path / "routed", encoder="hashed")


def test_time_is_the_median_of_single_judgements(source: Source, tiny_bundle: Path, tmp_path: Path) -> None:
    router = fit_bundle(Bundle.open(tiny_bundle), source, tmp_path / "routed", encoder="hashed")
    ticks = count()
    assert time_router(router, ["a", "b", "c"], None, clock=lambda: next(ticks) / 1000) == pytest.approx(1.0)


def test_examples_go_from_the_cheapest_to_the_most_expensive_routes(source: Source, tiny_bundle: Path) -> None:
    cells = source.open(Pool.of_bundle(Bundle.open(tiny_bundle))).cells(NAMES)
    estimates = Estimates(
        mean=cells.mean, standard_error=np.zeros_like(cells.mean), trust=np.ones(len(cells)), average=cells.mean.mean(0)
    )  # fmt: skip
    found = make_examples(Pool.of_bundle(Bundle.open(tiny_bundle)), source, cells, estimates, lambda _: None)
    assert len(found) == job.EXAMPLES
    costs = [NAMES.index(each.candidate) for each in found]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    assert all(each.png.startswith(b"\x89PNG") for each in found)


def test_a_page_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        job.write_text(tmp_path / "file" / "report.html", "page")
