"""An export as a whole, on tiny networks: the bundle works, nothing is done twice, and nothing half made is left to load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.error import BundleError, CancelledError, ConfigError, OutputError, Reason
from costroute_rt.export.bundle.event import ExportEvent
from costroute_rt.export.bundle.export import ExportReport, export_model
from costroute_rt.export.bundle.options import ExportOptions
from costroute_rt.export.bundle.work import work_folder
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.family.calls import candidate_calls, read_pool
from tests.export.bundle.tiny_source import TOKENS, make_graphs, write_source
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_source(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "fox.bundle"


def export(source: Source, target: Path, **how: Any) -> ExportReport:
    how = {"make_graphs": make_graphs, **how}
    named = {key: how.pop(key) for key in ("make_graphs", "progress", "cancel") if key in how}
    return export_model(source, target, ExportOptions(**how), **named)


def counted(parts: list[str], then: Callable[[str], object] = lambda _: None) -> Any:
    """`make_graphs` that notes what it makes."""

    def make(source: Source, component: Any, settings: Any) -> Any:
        then(component.name)
        parts.append(component.name)
        return make_graphs(source, component, settings)

    return make


def test_the_bundle_opens_with_the_weights_where_they_were(source: Source, target: Path) -> None:
    report = export(source, target)
    bundle = Bundle.open(target)
    assert [row["name"] for row in bundle.pool] == ["fox-v1@8", "fox-v1@15", "fox-v1@25"]
    assert bundle.image.sizes == ((64, 64),)
    assert bundle.tokenizers["tokenizer"].max_length == TOKENS
    assert (report.placed.written_bytes, report.placed.linked_bytes) == (0, sum(map(bundle.weights_bytes, bundle.components)))
    assert len({path.stat().st_ino for path in target.rglob("weights.safetensors")} | {source.path.stat().st_ino}) == 1
    assert os.listdir(target.parent) == ["fox.bundle"]
    assert str(source.path.parent) not in (target / "manifest.json").read_text()


def test_a_second_export_does_nothing_and_another_one_is_refused(source: Source, target: Path) -> None:
    export(source, target)
    before, parts = (target / "manifest.json").stat().st_mtime_ns, list[str]()
    assert not export(source, target, make_graphs=counted(parts)).is_new
    assert not parts
    with pytest.raises(OutputError, match="made from another source, with other options") as caught:
        export(source, target, steps=(3,))
    assert caught.value.reason is Reason.EXISTS
    assert (target / "manifest.json").stat().st_mtime_ns == before
    os.utime(source.path)
    with pytest.raises(OutputError, match="exists already"):
        export(source, target)
    assert export(source, target, steps=(3,), overwrite=True).is_new
    assert [row["num_inference_steps"] for row in Bundle.open(target).pool] == [3]


def test_a_copied_bundle_outlives_changes_of_the_source(source: Source, target: Path) -> None:
    report = export(source, target, copies=True)
    assert report.placed.linked_bytes == 0
    source.path.write_bytes(b"")
    Bundle.open(target)


def test_a_linked_bundle_whose_source_was_changed_in_place_is_refused(source: Source, target: Path) -> None:
    export(source, target)
    with open(source.path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x11")
    with pytest.raises(BundleError, match="does not match the manifest"):
        Bundle.open(target)


KILLED = """
import os, signal, sys
from pathlib import Path
from costroute_rt.export.bundle.export import export_model
from costroute_rt.export.bundle.options import ExportOptions
from tests.export.bundle.tiny_source import make_graphs, write_source

def make(source, component, settings):
    if component.name == "vae":
        os.kill(os.getpid(), signal.SIGKILL)
    return make_graphs(source, component, settings)

folder = Path(sys.argv[1])
export_model(write_source(folder / "source"), folder / "out" / "fox.bundle", ExportOptions(), make_graphs=make)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_export_leaves_nothing_that_loads_and_is_continued(tmp_path: Path, target: Path) -> None:
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, timeout=100, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert os.listdir(target.parent) == [work_folder(target).name]
    with pytest.raises(BundleError):
        Bundle.open(work_folder(target) / "bundle")
    times = (tmp_path / "source" / "fox-v1.safetensors").stat()
    source = write_source(tmp_path / "source")
    os.utime(source.path, ns=(times.st_atime_ns, times.st_mtime_ns))  # it was written again

    parts = list[str]()
    report = export(source, target, make_graphs=counted(parts))
    assert parts == ["vae"]
    assert report.continued == ("tokenizer", "text_encoder", "unet")
    Bundle.open(target)
    assert os.listdir(target.parent) == ["fox.bundle"]


def test_ctrl_c_and_cancel_keep_what_is_done(source: Source, target: Path) -> None:
    def interrupt(name: str) -> None:
        if name == "unet":
            raise KeyboardInterrupt

    cancel, parts = Event(), list[str]()
    with pytest.raises(KeyboardInterrupt):
        export(source, target, make_graphs=counted(parts, interrupt))
    with pytest.raises(CancelledError):
        export(source, target, make_graphs=counted(parts, lambda _: cancel.set()), cancel=cancel)
    assert not target.exists()
    assert export(source, target, make_graphs=counted(parts)).continued == ("tokenizer", "text_encoder")
    assert parts == ["text_encoder", "unet", "unet", "vae"]


def test_progress_counts_to_the_last_part(source: Source, target: Path) -> None:
    events = list[ExportEvent]()
    export(source, target, progress=events.append, copies=True)
    assert list(dict.fromkeys(event.part for event in events)) == ["tokenizer", "text_encoder", "unet", "vae", "checking the bundle"]
    assert {event.total for event in events} == {5}
    assert events[-1].done == 4
    assert max(event.share or 0 for event in events if event.part == "unet") == pytest.approx(1)


def test_weights_that_are_not_numbers_are_refused_and_leave_nothing(source: Source, target: Path) -> None:
    region = source.networks["vae"].weights["out"]
    with open(source.path, "r+b") as file:
        file.seek(region.offset)
        file.write(b"\x00\x7e")
    with pytest.raises(BundleError, match="NaN or infinite"):
        export(source, target)
    assert not os.listdir(target.parent)


@pytest.mark.parametrize("room", [2000, 5000], ids=["for no tokenizer", "for no weights"])
def test_a_disk_that_is_full_during_the_work_is_one_line(source: Source, target: Path, room: int) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"fox\.bundle: File too large"):
            export(source, target, copies=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not target.exists()
    assert not (work_folder(target) / "bundle" / "vae").exists()


def test_a_disk_that_is_full_before_the_work_is_one_line(source: Source, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1 << 20))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="the disk has 1 MiB free, the bundle needs 32 MiB"):
        export(source, target, copies=True)


@pytest.mark.parametrize("there", ["file", "folder", "bundle with a foreign file"])
def test_only_a_bundle_is_replaced(source: Source, target: Path, there: str) -> None:
    if there == "bundle with a foreign file":
        export(source, target)
        (target / "mine.txt").write_text("keep")
    else:
        target.parent.mkdir()
        target.write_text("keep") if there == "file" else target.mkdir()
    with pytest.raises(OutputError, match="so it is not replaced"):
        export(source, target, overwrite=True, steps=(3,))
    assert target.exists()


def test_the_working_directory_may_be_the_bundle_to_replace(source: Source, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(source, target)
    monkeypatch.chdir(target)
    export(source, Path(), overwrite=True, steps=(3,))
    assert [row["num_inference_steps"] for row in Bundle.open(target).pool] == [3]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("x" * 300, "File name too long"), ("\udcff", "not UTF-8"), ("fox-v1.safetensors/b", "(Not a directory|File exists)")],
    ids=["long", "bytes", "below a file"],
)
def test_a_place_that_cannot_be_is_one_line_before_any_work(source: Source, name: str, problem: str) -> None:
    with pytest.raises(OutputError, match=problem):
        export(source, source.path.parent / name, make_graphs=None)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(source: Source, target: Path) -> None:
    target.parent.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        export(source, target)


def test_notices_are_copied_and_the_notes_stay(source: Source, target: Path) -> None:
    notice = source.path.parent / "LICENSE"
    notice.write_text("Do as you like.")
    export(replace(source, licenses=(notice,), license="MIT", notes=("a template\x1b[31m",)), target)
    manifest = json.loads((target / "manifest.json").read_text())
    assert (target / "LICENSE").read_text() == "Do as you like."
    assert manifest["license"] == "MIT"
    assert manifest["notes"][0] == "a template\\x1b[31m"


def test_wrong_options_and_incomplete_sources_are_refused_before_any_work(source: Source, target: Path) -> None:
    with pytest.raises(ConfigError, match="size is '60x64': expected multiples of 16"):
        export(source, target, sizes=((60, 64),))
    with pytest.raises(ConfigError, match="kind is 'fast': expected one of base, turbo"):
        export(source, target, kind="fast")
    with pytest.raises(BundleError, match="it has no vae, which Stable Diffusion"):
        export(replace(source, networks={name: each for name, each in source.networks.items() if name != "vae"}), target)
    assert not target.parent.exists()


def test_candidates_whose_guidance_ends_early_have_both_step_graphs(source: Source, target: Path) -> None:
    export(source, target, steps=(10,), guidance_ends=(0.5, 1.0))
    bundle = Bundle.open(target)
    assert [row["name"] for row in bundle.pool] == ["fox-v1-g50@10", "fox-v1@10"]
    early, whole = read_pool(bundle)
    times = {
        name.graph: call.times for call in candidate_calls(bundle, early) if (name := EngineName.parse(call.engine)).component == "unet"
    }
    assert {use: times[use] for use in ("step", "guided_step")} == {"step": 5, "guided_step": 5}
    assert [call.times for call in candidate_calls(bundle, whole) if call.engine.endswith("/guided_step")] == [10]


@pytest.mark.parametrize("options", [{"guidance_ends": (0.0,)}, {"guidance_ends": (1.5,)}, {"guidance_rescale": 2.0}])
def test_impossible_guidance_is_refused(source: Source, target: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        export(source, target, **options)
