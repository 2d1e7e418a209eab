"""`backend="auto"`: the fastest set of engines that is complete and good, found once; what it takes before, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import BackendChoice, Runtime
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.progress import OpenEvent, Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.store.fastest import FASTEST
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, CancelledError, ConfigError
from costroute_rt.family.auto_backend import choose_backend
from costroute_rt.generation import fastest
from costroute_rt.generation.engine_gate import ImageReport
from tests.second_backend import BFLOAT16, FLOAT32, USUAL, World, install

Choose = Callable[..., BackendChoice]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch)


@pytest.fixture
def pool(tiny_bundle: Path) -> Pool:
    return Pool.of_bundle(Bundle.open(tiny_bundle, verify=False)).select(candidates=["tiny-turbo@1", "tiny-turbo@2"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


@pytest.fixture
def choose(pool: Pool, store: Store) -> Choose:
    """What `auto` stands for now."""

    def chosen(**options: Any) -> BackendChoice:
        choice = choose_backend(pool, store, **{"threads": 1, **options}).choice
        assert choice is not None
        return choice

    return chosen


def build(pool: Pool, store: Store, **options: Any) -> BackendChoice:
    choice = fastest.build_fastest(pool, store, threads=1, **options).chosen.choice
    assert choice is not None
    return choice


@pytest.mark.parametrize(("ratio", "engines"), [(0.5, BFLOAT16), (0.9, BFLOAT16), (0.93, USUAL), (2.0, USUAL)])
def test_it_takes_what_is_clearly_faster(world: World, pool: Pool, store: Store, choose: Choose, ratio: float, engines: str) -> None:
    world.ratio = ratio
    choice = build(pool, store)
    assert (choice.engines, choice.basis, choice.left_out) == (engines, "measured", {})
    assert f"{ratio:.2f} times as long as those by {USUAL}" in choice.reason
    assert choice.image_ms == {USUAL: {"tiny-turbo@1": 100.0}, BFLOAT16: {"tiny-turbo@1": 100 * ratio}}
    assert choose() == choice
    assert build(pool, store) == choice
    assert world.measured == 1
    build(pool, store, force=True)
    assert world.measured == 2


def test_a_runtime_opens_on_it(world: World, tiny_bundle: Path, tmp_path: Path) -> None:
    names = list[str | None]()

    def note(event: OpenEvent) -> None:
        names.append(event.engine)

    choice = Runtime.build_fastest(tiny_bundle, home=tmp_path, threads=1, progress=note)
    assert {"tiny/turbo/step", None} <= set(names)
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1) as runtime:
        assert (runtime.choice, runtime.setup) == (choice, {"backend": "openvino", "provider": "cpu", "precision": "bfloat16"})
        assert runtime.generate("a lake", candidate="tiny-turbo@1", seed=0).settings["backend"] == "openvino"
    with Runtime.open(tiny_bundle, home=tmp_path, threads=1, backend="onnxruntime") as runtime:
        assert (runtime.choice, runtime.setup["backend"]) == (None, "onnxruntime")


def test_before_a_comparison_the_usual_engines_run(world: World, pool: Pool, store: Store, choose: Choose, tiny_bundle: Path) -> None:
    with Runtime.open(tiny_bundle, home=store.root, threads=1, candidates=["tiny-turbo@1"], build=True, preload=False) as runtime:
        assert runtime.choice == choose()
    choice = choose()
    assert (choice.engines, choice.basis, choice.reason) == (USUAL, "not_measured", "it was not compared with openvino yet")
    assert {stored.key.backend for stored in store.engines()} == {"onnxruntime"}
    assert not (store.root / FASTEST).exists()


def test_others_run_where_only_these_are_built(
    world: World, pool: Pool, store: Store, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest._build_set(
        pool, store, lambda setup: fastest._every_name(pool, setup), True, False, fastest.unwatched, Setup(backend="openvino", threads=1)
    )
    assert (choose().engines, choose().basis) == (FLOAT32, "not_measured")
    assert choose().reason == f"its engines are built, and those of {USUAL} are not"


def test_images_that_differ_keep_bfloat16_out(world: World, pool: Pool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_images(bundle: Bundle, store: Store, setup: Setup, on_run: object) -> list[ImageReport]:
        why = "its images differ" if setup.precision == "bfloat16" else None
        return [ImageReport(engine="tiny/turbo/step", reference="float32", latent_psnr_db=9.0, ssim=0.1, quarantined=why)]

    monkeypatch.setattr(fastest, "check_images", check_images)
    choice = build(pool, store)
    assert choice.engines == FLOAT32
    assert choice.left_out == {BFLOAT16: "tiny/turbo/step is quarantined: its images differ"}


def test_bfloat16_whose_images_were_not_compared_is_left_out(
    world: World, pool: Pool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = ImageReport(engine="tiny/turbo/step", skipped="there is nothing to compare with")
    monkeypatch.setattr(fastest, "check_images", lambda *_: [skipped])
    choice = build(pool, store)
    assert (choice.engines, list(choice.left_out)) == (FLOAT32, [BFLOAT16])


def test_engines_that_cannot_be_built_are_left_out(world: World, pool: Pool, store: Store) -> None:
    world.refuses = "bfloat16"
    choice = build(pool, store)
    assert choice.engines == FLOAT32
    assert "no such operator" in choice.left_out[BFLOAT16]


def test_a_damaged_library_is_left_out_until_it_works(world: World, pool: Pool, store: Store, choose: Choose) -> None:
    world.damage = "a damaged file"
    choice = build(pool, store)
    assert (choice.engines, choice.reason, world.measured) == (USUAL, "no other engines can be used", 0)
    assert set(choice.left_out) == {BFLOAT16, FLOAT32}
    assert all("a damaged file" in why for why in choice.left_out.values())
    world.damage = None
    assert choose().basis == "not_measured"
    assert build(pool, store).engines == BFLOAT16


def test_what_is_not_installed_is_named_with_its_extra(world: World, pool: Pool, store: Store, choose: Choose) -> None:
    world.version = None
    assert (choose().engines, choose().basis) == (USUAL, "only")
    assert choose().left_out == {"openvino": "it is not installed (install the openvino extra)"}
    assert "openvino is left out: it is not installed" in str(choose())
    assert build(pool, store) == choose()


@pytest.mark.parametrize("change", ["library", "machine", "weights"])
def test_a_result_is_stale_after_a_change(
    world: World, pool: Pool, store: Store, choose: Choose, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    build(pool, store)
    assert choose().basis == "measured"
    if change == "library":
        world.version = "2027.1"
    elif change == "machine":
        monkeypatch.setattr("costroute_rt.engines.machine.device.cpu_name", lambda: "another processor")
    else:
        (name, bundle), *_ = pool.bundles.items()
        files = {path: replace(entry, sha256="0" * 64) for path, entry in bundle.files.items()}
        pool = replace(pool, bundles={name: replace(bundle, files=files)})
        assert choose_backend(pool, store, threads=1).choice != choose()
        return
    assert choose().basis == "not_measured"


def test_fewer_candidates_and_another_router_are_no_change(world: World, pool: Pool, store: Store) -> None:
    choice = build(pool, store)
    assert choose_backend(pool.select(candidates=["tiny-turbo@2"]), store, threads=2).choice == choice


@pytest.mark.parametrize(("is_able", "engines"), [(True, BFLOAT16), (False, FLOAT32)])
def test_large_models_are_not_compared(
    world: World, pool: Pool, store: Store, choose: Choose, monkeypatch: pytest.MonkeyPatch, is_able: bool, engines: str
) -> None:
    monkeypatch.setattr("costroute_rt.family.auto_backend.LARGE_BYTES", 0)
    monkeypatch.setattr("costroute_rt.family.auto_backend.has_fast_bfloat16", lambda: is_able)
    assert (choose().engines, choose().basis) == (engines, "rule")
    done = fastest.build_fastest(pool, store, threads=1)
    assert [str(each.setup) for each in done.sets] == [engines]
    assert (choose().engines, choose().basis, world.measured) == (engines, "rule", 0)
    assert choose(precision="float32").engines == FLOAT32


@pytest.mark.parametrize(
    ("name", "features", "precision"),
    [
        ("Intel(R) Xeon(R) Processor", ["avx512_bf16", "amx_bf16"], "bfloat16"),
        ("AMD EPYC 9005", ["avx512_bf16"], "bfloat16"),
        ("Intel(R) Xeon(R) Processor", ["avx512_bf16"], "float32"),
        ("AMD EPYC 7003", ["avx2"], "float32"),
    ],
)
def test_the_precision_in_which_the_processor_is_faster_comes_first(
    monkeypatch: pytest.MonkeyPatch, name: str, features: list[str], precision: str
) -> None:
    monkeypatch.setattr("costroute_rt.engines.machine.device.cpu_name", lambda: name)
    monkeypatch.setattr("costroute_rt.engines.machine.device.cpu_features", lambda: features)
    assert [str(each) for each in fastest.setups_to_compare("auto", 2)][1] == f"openvino cpu {precision}"


def test_large_models_run_on_engines_that_are_built(
    world: World, pool: Pool, store: Store, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTROUTE_BACKEND", "onnxruntime")
    build(pool, store)
    monkeypatch.delenv("COSTROUTE_BACKEND")
    monkeypatch.setattr("costroute_rt.family.auto_backend.LARGE_BYTES", 0)
    assert (choose().engines, choose().basis) == (USUAL, "rule")
    assert choose().reason == f"its engines are built; those of {BFLOAT16}, usually the fastest on this processor, are not"


def test_the_environment_fixes_it(world: World, pool: Pool, store: Store, choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    build(pool, store)
    monkeypatch.setenv("COSTROUTE_BACKEND", "onnxruntime")
    assert (choose().engines, choose().basis, choose().reason) == (USUAL, "environment", "$COSTROUTE_BACKEND says so")
    assert choose_backend(pool, store, backend="openvino", threads=1).setup.backend == "openvino"
    monkeypatch.setenv("COSTROUTE_BACKEND", "openvino")
    assert (choose().engines, choose(precision="bfloat16").engines) == (FLOAT32, BFLOAT16)
    monkeypatch.setenv("COSTROUTE_BACKEND", "")
    assert choose().basis == "measured"
    monkeypatch.setenv("COSTROUTE_BACKEND", "abacus")
    with pytest.raises(ConfigError, match="COSTROUTE_BACKEND is 'abacus': expected one of auto, onnxruntime"):
        choose()


def test_a_precision_or_provider_may_leave_one_backend(world: World, pool: Pool, store: Store, choose: Choose) -> None:
    assert (choose(precision="bfloat16").engines, choose(precision="bfloat16").basis) == (BFLOAT16, "only")
    assert build(pool, store, precision="float32").engines == FLOAT32
    assert choose().basis == "not_measured"
    assert choose(precision="float32").basis == "measured"
    assert choose(provider="cuda").engines == "onnxruntime cuda float32"
    world.version = None
    assert choose(precision="bfloat16").backend == "onnxruntime"  # which says that it has no such precision
    with pytest.raises(ConfigError):
        choose(precision="float64")


@pytest.mark.parametrize("name", ["backend", "provider", "precision"])
def test_names_are_text(world: World, pool: Pool, store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*expected a name"):
        choose_backend(pool, store, **{name: np.array(["auto", "cpu"])})  # type: ignore[arg-type]


def test_a_part_of_the_engines_is_not_compared(world: World, pool: Pool, store: Store) -> None:
    bundle = next(iter(pool.bundles.values()))
    done = fastest.build_fastest(pool, store, threads=1, names_of=lambda _: [(bundle, ["tiny/vae/decode"])], is_whole=False)
    assert [(str(each.setup), [report.engine for _, own in each.built for report in own]) for each in done.sets] == [
        (USUAL, ["tiny/vae/decode"]),
        (BFLOAT16, ["tiny/vae/decode"]),
    ]
    assert (done.chosen.choice is not None and done.chosen.choice.basis, world.measured) == ("not_measured", 0)


def test_it_can_be_cancelled(world: World, tiny_bundle: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        Runtime.build_fastest(tiny_bundle, home=tmp_path, threads=1, cancel=cancel)


@pytest.mark.parametrize(("image_s", "turns"), [((0.02, 0.01), 15), ((0.3, 0.25), 6), ((1.0, 0.5), 5), ((30.0, 10.0), 2)])
def test_images_are_made_in_turns(image_s: tuple[float, float], turns: int) -> None:
    now_s, made = 0.0, list[int]()

    def maker(index: int) -> Callable[[], None]:
        def make() -> None:
            nonlocal now_s
            made.append(index)
            now_s += image_s[index]

        return make

    found = list(fastest._take_turns([maker(0), maker(1)], lambda share: None, (lambda: now_s, lambda: 2 * now_s)))
    assert len(found) == turns
    assert made == [0, 1] * (turns + 1)
    assert all(image == pytest.approx((1000 * each, 2000 * each)) for turn in found for image, each in zip(turn, image_s, strict=True))


def test_a_busy_machine_is_seen_through() -> None:
    usual, other = Setup(), Setup(backend="openvino", precision="bfloat16")
    quiet = fastest.ImageRace({"a": [[(100.0, 180.0), (60.0, 110.0)]] * 5, "b": [[(200.0, 380.0), (30.0, 40.0)]] * 5})
    assert (quiet.is_starved, quiet.ratio) == (False, pytest.approx((0.6 * 0.15) ** 0.5))
    assert quiet.describe(other, usual, other) == f"fastest here: its images take 0.30 times as long as those by {USUAL}"
    luck = [(400.0, 1500.0), (900.0, 350.0), (500.0, 800.0)]
    busy = fastest.ImageRace({"a": [[(one, 180.0), (two, 108.0)] for one, two in luck]})
    assert (busy.is_starved, busy.ratio) == (True, pytest.approx(0.6))
    assert busy.median_ms((usual, other)) == {USUAL: {"a": 180.0}, BFLOAT16: {"a": 108.0}}
    assert "take 0.60 times the processor time of those by" in busy.describe(other, usual, other)


def test_both_libraries_make_the_same_images(monkeypatch: pytest.MonkeyPatch, pool: Pool, store: Store, choose: Choose) -> None:
    monkeypatch.delenv("COSTROUTE_BACKEND", raising=False)
    try:
        Setup.of("openvino").tool()
    except BackendError as error:
        pytest.skip(str(error))
    choice = build(pool, store)
    assert (choice.basis, len(choice.image_ms)) == ("measured", 2)
    assert all(set(times) == {"tiny-turbo@1", "tiny-turbo@2"} and min(times.values()) > 0 for times in choice.image_ms.values())
    with Runtime.open(next(iter(pool.bundles.values())).root, home=store.root, threads=1, candidates=["tiny-turbo@1"]) as runtime:
        assert runtime.choice == choice
        assert runtime.generate("a lake", seed=0).settings["backend"] == choice.backend


def test_measuring_reports_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tmp_path: Path) -> None:
    monkeypatch.undo()
    install(monkeypatch, measures=fastest.measure_images)
    shares = list[float | None]()

    def note(event: OpenEvent) -> None:
        if (event.stage, event.engine, event.done, event.total) == ("measure", None, 0, 1):  # all steps of a build are more
            shares.append(event.share)

    choice = Runtime.build_fastest(tiny_bundle, home=tmp_path, threads=1, progress=note)
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert 0 < known[-1] <= 1
    assert set(choice.image_ms) == {USUAL, BFLOAT16}


def test_the_usual_engines_are_needed(world: World, pool: Pool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise BackendError("ONNX Runtime", "none", "install the cpu extra", ["costroute-rt[cpu]"])

    monkeypatch.setattr("costroute_rt.engines.backends.setup.get_backend", missing)
    with pytest.raises(BackendError, match="install the cpu extra"):
        build(pool, store)
    with pytest.raises(BackendError, match="install the cpu extra"):
        choose_backend(pool, store)
    assert Tracker().poll is None
