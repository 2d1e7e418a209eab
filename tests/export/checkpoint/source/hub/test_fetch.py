"""Models of a hub on loopback: which files are fetched, what is continued, and what the cache is good for without a network."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from costroute_rt.error import BundleError, CancelledError, ConfigError, OutputError
from costroute_rt.export.checkpoint.source.hub.fetch import fetch_model
from costroute_rt.export.checkpoint.source.opening import open_source
from tests.export.checkpoint.source.hub.small_repository import CHUNK, NOT_NEEDED, SHARD, make_pipeline
from tests.hub_server import HubServer, Repository, needs_continuing, needs_hub

pytestmark = needs_hub
BIG, SMALL = SHARD.format(1), SHARD.format(2)
SIZE = len(make_pipeline()[BIG])
VAE = "vae/diffusion_pytorch_model-00001-of-00002.safetensors"
VARIANT = "vae/diffusion_pytorch_model.fp16.safetensors"
FETCH = """
import sys
from costroute_rt.error import CostrouteError
from costroute_rt.export.checkpoint.source.hub import client
from costroute_rt.export.checkpoint.source.hub.fetch import fetch_model
client._CHUNK_BYTES = 1 << 15
try:
    print(fetch_model(sys.argv[1]))
except CostrouteError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run_fetch(server: HubServer, home: Path, repo_id: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FETCH, repo_id]
    return subprocess.run(command, env=server.environment(home) | more, capture_output=True, text=True, timeout=60)


def test_the_needed_files_are_fetched_and_no_others(server: HubServer) -> None:
    files, reports = make_pipeline(), list[tuple[int, int, str]]()
    folder = fetch_model("someone/sd", progress=lambda *report: reports.append(report))
    needed = files.keys() - NOT_NEEDED
    assert names_in(folder) == needed
    source = open_source(folder)
    assert (source.name, source.family, [path.name for path in source.licenses]) == ("sd", "sd1", ["LICENSE", "README.md"])
    assert server.sent == {name: len(files[name]) for name in needed}
    assert all((folder / name).read_bytes() == files[name] for name in needed)
    total = sum(len(files[name]) for name in needed)
    assert reports[-1][:2] == (total, total)
    assert {report[1] for report in reports} == {total}
    assert {report[2] for report in reports} == needed
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert len({report[0] for report in reports if report[2] == BIG}) > 5, "progress within a file"


def test_a_complete_snapshot_is_used_without_a_request(server: HubServer) -> None:
    folder = fetch_model("someone/sd")
    server.forget()
    assert fetch_model("someone/sd") == folder
    assert fetch_model("someone/sd", revision=folder.name) == folder
    assert server.requests == []
    assert fetch_model("someone/sd", revision="v1") == folder, "files of the same commit are not fetched again"
    assert server.sent == {}


def test_the_cache_is_enough_when_the_hub_is_gone(server: HubServer) -> None:
    fetched = [fetch_model(repo_id) for repo_id in ("someone/sd", "someone/file", "someone/file/one.safetensors")]
    server.close()
    assert [fetch_model(repo_id) for repo_id in ("someone/sd", "someone/file", "someone/file/one.safetensors")] == fetched
    assert fetch_model("someone/file", offline=True) == fetched[1]
    (fetched[0] / SMALL).unlink()
    with pytest.raises(
        BundleError, match=r"someone/sd: the cache does not hold all of it, and 127\.0\.0\.1:\d+ cannot be reached; connect"
    ):
        fetch_model("someone/sd")
    with pytest.raises(BundleError, match="does not hold all of it, and the network may not be used; run it once with the network"):
        fetch_model("someone/sd", offline=True)


def test_a_variant_is_preferred_where_there_is_one(server: HubServer) -> None:
    folder = fetch_model("someone/sd", variant="fp16")
    assert names_in(folder) & {VARIANT, BIG, VAE} == {VARIANT, BIG}
    assert open_source(folder, variant="fp16").networks["vae"].files() == ((folder / VARIANT).resolve(),)
    with pytest.raises(BundleError, match="no weights of the variant bf16; name a variant that it has, or none"):
        fetch_model("someone/sd", variant="bf16")


def test_single_files_are_fetched_by_repository_or_by_name(server: HubServer) -> None:
    found = fetch_model("someone/file")
    assert (found.name, found.read_bytes()) == ("one.safetensors", bytes(1000))
    assert (found.parent / "README.md").is_file()
    assert fetch_model("someone/sd/v1-5-pruned.safetensors").read_bytes() == b"v1-5-pruned.safetensors"
    with pytest.raises(BundleError, match=r"no file two\.safetensors; choose one of its files: one\.safetensors"):
        fetch_model("someone/file/two.safetensors")


def test_a_broken_connection_is_continued(server: HubServer) -> None:
    server.cut[BIG] = [SIZE // 4, SIZE // 2]
    folder = fetch_model("someone/sd")
    assert (folder / BIG).read_bytes() == make_pipeline()[BIG]
    assert server.sent[BIG] <= SIZE + 2 * CHUNK, "at most one chunk is fetched again after each break"


@needs_continuing
def test_a_connection_that_breaks_every_time_is_given_up_and_continued_by_the_next_run(server: HubServer) -> None:
    server.cut[BIG] = [SIZE // 2, *[0] * 20]
    with pytest.raises(
        BundleError, match=r"broke at unet/diffusion_pytorch_model-00001-of-00002\.safetensors, again and again; run it again"
    ):
        fetch_model("someone/sd")
    server.cut.clear()
    server.forget()
    fetch_model("someone/sd")
    assert server.sent[BIG] <= SIZE - SIZE // 2 + CHUNK
    assert "vae/config.json" not in server.sent


@needs_continuing
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process as POSIX systems do")
def test_a_killed_download_is_continued_and_works_offline_afterwards(server: HubServer, home: Path) -> None:
    server.hold[VAE] = SIZE // 2
    process = subprocess.Popen([sys.executable, "-c", FETCH, "someone/sd"], env=server.environment(home), stdout=subprocess.DEVNULL)
    try:
        assert server.held.wait(60)
        wait_for_part(home, SIZE // 2 - CHUNK)
    finally:
        process.kill()
        process.wait()
    server.hold.clear()
    assert run_fetch(server, home, "someone/sd", HF_HUB_OFFLINE="1").returncode == 1
    server.forget()
    second = run_fetch(server, home, "someone/sd")
    assert (second.returncode, second.stderr) == (0, "")
    assert server.sent.keys().isdisjoint({BIG, "model_index.json", "unet/config.json"}), "what was done is not fetched again"
    assert server.sent[VAE] <= len(make_pipeline()[VAE]) - SIZE // 2 + CHUNK
    server.close()
    third = run_fetch(server, home, "someone/sd", HF_HUB_OFFLINE="1")
    assert (third.returncode, third.stdout) == (0, second.stdout)
    assert third.stdout.startswith(str(home))


def wait_for_part(home: Path, size: int) -> None:
    """Until an incomplete file in the cache has so many bytes."""
    waiting = threading.Event()
    for _ in range(1000):
        if any(path.stat().st_size >= size for path in home.glob("hub/*/blobs/*.incomplete")):
            return
        waiting.wait(0.01)
    raise TimeoutError("nothing was written")


@needs_continuing
def test_a_download_is_cancelled_by_its_callback_or_an_event_and_continued(server: HubServer) -> None:
    cancel = threading.Event()

    def stop(done: int, total: int, file: str) -> None:
        if file == BIG and done > SIZE // 2:
            cancel.set()

    with pytest.raises(CancelledError):
        fetch_model("someone/sd", progress=stop, cancel=cancel)
    with pytest.raises(CancelledError):
        fetch_model("someone/sd", progress=lambda done, total, file: False)
    server.forget()
    fetch_model("someone/sd")
    assert server.sent[BIG] < SIZE


@needs_continuing
def test_ctrl_c_leaves_what_is_done(server: HubServer) -> None:
    def press(done: int, total: int, file: str) -> None:
        if file == BIG and done > SIZE // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_model("someone/sd", progress=press)
    server.forget()
    fetch_model("someone/sd")
    assert server.sent[BIG] < SIZE


def test_names_that_lead_out_of_the_cache_are_left_out(server: HubServer, home: Path) -> None:
    names = ("../../../../out.safetensors", "/out.safetensors", "..\\out.safetensors", "a:out.safetensors", "a\nb.safetensors")
    server.repositories["someone/bad"] = Repository(dict.fromkeys(names, b"x") | {"good.safetensors": b"y"})
    assert fetch_model("someone/bad").read_bytes() == b"y"
    assert not list(home.rglob("*out*"))


def test_a_failing_callback_is_not_taken_for_a_failing_hub(server: HubServer) -> None:
    def fail(done: int, total: int, file: str) -> None:
        if file == BIG and done > SIZE // 2:
            raise ConnectionError("of the caller")

    with pytest.raises(ConnectionError, match="of the caller"):
        fetch_model("someone/sd", progress=fail)


def test_changed_content_is_refused_and_removed(server: HubServer) -> None:
    server.repositories["someone/sd"].changed[VAE] = bytes(len(make_pipeline()[VAE]))
    with pytest.raises(BundleError, match=r"its file vae/.* has the hash \w{12} instead of \w{12}, and was removed again; run it again"):
        fetch_model("someone/sd")
    server.repositories["someone/sd"].changed.clear()
    assert (fetch_model("someone/sd") / VAE).read_bytes() == make_pipeline()[VAE]


def test_a_part_that_is_too_long_is_dropped(server: HubServer) -> None:
    pointer = fetch_model("someone/sd") / SMALL
    blob = pointer.resolve()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(blob.read_bytes() + b"more")
    pointer.unlink()
    blob.unlink()
    fetch_model("someone/sd")
    assert pointer.read_bytes() == make_pipeline()[SMALL]


def test_a_full_disk_is_found_before_the_download(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(OutputError, match=r"hub: the download needs 3\.3 MB, and 1 MB are free; free some space, or set HF_HOME"):
        fetch_model("someone/sd")
    assert BIG not in server.sent


def test_models_that_cannot_be_exported_are_refused_before_their_weights_are_fetched(server: HubServer) -> None:
    files, config = make_pipeline(), json.loads(make_pipeline()["unet/config.json"])
    server.repositories["someone/flux"] = Repository({"model_index.json": b'{"_class_name": "FluxPipeline"}', "ae.safetensors": b""})
    server.repositories["someone/inpaint"] = Repository(files | {"unet/config.json": json.dumps(config | {"in_channels": 9}).encode()})
    with pytest.raises(BundleError, match="someone/flux: it holds a FluxPipeline; only pipelines of Stable Diffusion"):
        fetch_model("someone/flux")
    with pytest.raises(BundleError, match=r"takes 9 channels \(inpainting\)"):
        fetch_model("someone/inpaint")
    assert not any(name.endswith(".safetensors") for name in server.sent)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"repo_id": "./sd"}, "repo_id"),
        ({"variant": "fp16.x"}, "variant"),
        ({"revision": "../x"}, "revision"),
        ({"token": "a\nb"}, "token"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is"):
        fetch_model(**({"repo_id": "someone/sd"} | arguments))
