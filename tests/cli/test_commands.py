from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from costroute_rt.cli.info import reproduce
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.routing.router_bundle import with_router
from tests.cli.conftest import Run
from tests.int8_bundle import write_int8_bundle
from tests.small_router import make_router


@pytest.fixture
def own_home(run: Run, home: Path, tiny_bundle: Path) -> Path:
    """A COSTROUTE_HOME with one engine built, for tests that change it."""
    assert run("build-engines", "--bundle", tiny_bundle, "--graph", "vae/decode").exit_code == 0
    return home


def test_version(run: Run) -> None:
    assert run("--version").stdout.startswith("costroute-rt ")


@pytest.mark.parametrize("arguments", [(), ("engines",)])
def test_a_group_alone_prints_its_help(arguments: tuple[str, ...], run: Run) -> None:
    done = run(*arguments)
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: costroute-rt")


def test_route_lists_every_candidate_and_marks_the_chosen(run: Run, built: Path, tiny_bundle: Path) -> None:
    done = run("route", "a lake", "--bundle", tiny_bundle, "--max-ms", 60000)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.startswith("*") for line in lines[1:5]] == [False, False, False, True]
    assert lines[-2].startswith("tiny-base@8: ")
    assert lines[-1] == "quality by averages: there is no router"


def test_route_json(run: Run, built: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("route", "a lake", "--bundle", tiny_bundle, "--tolerance", 10, "--json").stdout)
    assert report["chosen"].startswith("tiny-turbo")
    assert len(report["options"]) == 4
    assert report["assumes"] is None


def test_a_router_names_the_prompts_it_learned_from_and_says_when_there_are_none_like_it(
    run: Run, built: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    make_router(bundle.pool).save(tmp_path / "router")
    target = with_router(bundle, tmp_path / "router", tmp_path / "bundle").root
    done = run("route", "a red bird", "--bundle", target)
    assert done.stdout.splitlines()[-4:-2] == ["quality by mean estimator on 60 labelled prompts", "  1.00 like 'a red bird'"]
    assert done.stderr == ""
    note = "note: unlike the labelled prompts: averages count for more\n"
    assert run("route", "tax return", "--bundle", target).stderr == note
    assert run("gen", "tax return", "--bundle", target, "-o", "a.png").stderr == note
    assert run("gen", "tax return", "--bundle", target, "-o", "b.png", "--candidate", "tiny-turbo@1").stderr == ""
    report = json.loads(run("route", "a red bird", "--bundle", target, "--json").stdout)
    assert report["router"]["nearest"][0] == {"prompt": "a red bird", "similarity": 1.0}


def test_build_engines_keeps_valid_engines(run: Run, built: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("build-engines", "--bundle", tiny_bundle, "--json").stdout)
    assert report["engines"]
    assert not any(engine["built"] for engine in report["engines"])


@pytest.mark.parametrize("is_wrong", [False, True])
def test_build_engines_reports_how_close_images_are(run: Run, home: Path, tiny_bundle: Path, tmp_path: Path, is_wrong: bool) -> None:
    bundle = write_int8_bundle(tiny_bundle, tmp_path / "bundle", is_wrong=is_wrong).root
    done = run("build-engines", "--bundle", bundle)
    assert done.stdout.splitlines()[-1].split()[-1] == ("quarantined" if is_wrong else "good")
    assert done.exit_code == (5 if is_wrong else 0)
    assert ("it is quarantined: its images differ from those of base on onnxruntime" in done.stderr) == is_wrong
    (images,) = json.loads(run("build-engines", "--bundle", bundle, "--json").stdout)["images"]
    assert (images["latent_psnr_db"] > 25, images["quarantined"] is None) == (not is_wrong, not is_wrong)


def test_engines_list(run: Run, built: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("engines", "list", "--bundle", tiny_bundle, "--json").stdout)
    assert all(engine["used_by"] and engine["median_ms"] > 0 for engine in report["engines"])
    assert Path(report["store"]).is_relative_to(built)
    assert {engine["state"] for engine in report["engines"]} == {"ready"}
    shown = run("engines", "list").stdout
    assert f"{len(report['engines'])} engines, " in shown


def test_engines_list_of_an_empty_store(run: Run, home: Path) -> None:
    assert json.loads(run("engines", "list", "--json").stdout)["engines"] == []
    assert run("engines", "list").stdout.splitlines()[-1].startswith("0 engines, 0 B in ")


def test_engines_verify_finds_a_flipped_byte(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    assert run("engines", "verify").exit_code == 0
    victim = next(own_home.rglob("model.onnx"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = run("engines", "verify", "--json")
    command = f"costroute-rt build-engines --bundle {tiny_bundle}"
    assert done.exit_code == 5
    assert f"1 of 1 engines are damaged ({command})" in done.stderr
    (engine,) = json.loads(done.stdout)["engines"]
    assert "model.onnx: its content is not what was built" in engine["problem"]
    assert engine["command"] == command
    assert command in [problem["command"] for problem in json.loads(run("doctor", "--json").stdout)["problems"]]


def test_an_engine_whose_manifest_cannot_be_read_is_to_be_removed(run: Run, own_home: Path) -> None:
    manifest = next(own_home.rglob("manifest.json"))
    manifest.write_text("{")
    done = run("engines", "verify")
    command = f"costroute-rt engines rm {manifest.parent.name[:12]}"
    assert (done.exit_code, command in done.stderr) == (5, True)
    assert run(*command.split()[1:]).exit_code == 0
    assert run("engines", "verify").exit_code == 0


def test_engines_explain_says_what_would_be_found(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("engines", "explain", "--bundle", tiny_bundle, "--json").stdout)
    found = {engine["graph"]: engine["found"] for engine in report["engines"]}
    assert [graph for graph, there in found.items() if there] == [graph for graph in found if "decode" in graph]
    assert run("engines", "explain", "--bundle", tiny_bundle).exit_code == 0


def test_engines_explain_names_another_backend_only(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    from costroute_rt.engines.store.store import Store

    store = Store.open(own_home)
    (stored,) = store.engines()
    key = replace(stored.key, backend="abacus", device="older")
    store.remove(stored.digest)
    with store.lock(key.digest):
        store.write(key, lambda _: {"built_at": "then", "build_s": 1.0, "gate": {}, "source": "x", "quarantined": "slow"})
    lines = run("engines", "explain", "--bundle", tiny_bundle).stdout.splitlines()
    assert next(line for line in lines if "decode" in line).split("  ")[-1].strip() == "built by abacus"
    report = json.loads(run("engines", "explain", "--bundle", tiny_bundle, "--json").stdout)["engines"]
    assert [[each["field"] for each in one["differences"]] for one in report if "decode" in one["graph"]] == [["backend", "device"]]


def test_users_of_an_engine_are_abbreviated() -> None:
    from costroute_rt.cli.engines import _users

    names = [f"base@{steps}" for steps in range(10)]
    assert [_users(names[:count], 10) for count in (0, 1, 2, 3, 10)] == [
        None, "base@0", "base@0, base@1", "base@0, base@1, +1", "all 10"
    ]  # fmt: skip


def test_engines_rm(run: Run, own_home: Path) -> None:
    digest = json.loads(run("engines", "list", "--json").stdout)["engines"][0]["engine"]
    assert run("engines", "rm").exit_code == 2
    assert run("engines", "rm", "0000").exit_code == 5
    partly = run("engines", "rm", digest[:12], "0000")
    assert partly.exit_code == 5
    assert partly.stdout.startswith(f"removed {digest[:12]} ")
    assert "nothing to remove" in run("engines", "rm", "--all").stderr


def test_profile_measures_every_engine(run: Run, built: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("profile", "--bundle", tiny_bundle, "--json").stdout)
    assert all(0 < cost["median_ms"] <= cost["p95_ms"] for cost in report["costs"])


def test_info_refuses_other_images(run: Run) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    Path("text.png").write_text("no image")
    for name in ("plain.png", "text.png", "missing.png"):
        done = run("info", name)
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1


def test_doctor_reports_facts_and_problems(run: Run, built: Path) -> None:
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == (0 if report["ok"] else 1)
    assert {"costroute-rt", "python", "numpy", "store"} <= set(report["facts"])
    assert all(problem["remedy"] for problem in report["problems"])


def test_doctor_shows_the_limits_of_the_processor_and_the_condition_of_costs(
    run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from costroute_rt.engines.machine.cgroup import CpuQuota

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("costroute_rt.engines.machine.cgroup.allowed_cpus", lambda *_: frozenset())
    monkeypatch.setattr("costroute_rt.engines.machine.cgroup.cpu_quota", lambda *_: CpuQuota(1.5, "cgroup v2"))
    monkeypatch.setattr("costroute_rt.engines.machine.device.power_mode", lambda *_: "on battery")
    report = json.loads(run("doctor", "--json").stdout)
    assert report["facts"]["cpu limit"] == "2 of 8 cores (CPU quota 1.5, cgroup v2)"
    assert report["facts"]["usable cores"] == "2"
    assert report["condition"] == {
        "threads": 2, "cpu_limit": "2 of 8 cores (CPU quota 1.5, cgroup v2)", "power_mode": "on battery",
        "logical_cores": 8, "allowed_cores": 8, "usable_cores": 2, "cpu_quota": 1.5, "cpu_quota_source": "cgroup v2",
    }  # fmt: skip
    assert "2 threads, 2 of 8 cores (CPU quota 1.5, cgroup v2), power mode on battery" in run("doctor").stdout


def test_costs_of_every_condition_are_shown(run: Run, own_home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("build-engines", "--bundle", tiny_bundle, "--threads", 1).exit_code == 0
    monkeypatch.setattr("costroute_rt.engines.machine.device.power_mode", lambda *_: "on battery")
    report = json.loads(run("profile", "--bundle", tiny_bundle, "--threads", 1, "--json").stdout)
    assert (report["condition"]["threads"], report["condition"]["power_mode"]) == (1, "on battery")
    assert "on battery" not in {each["power_mode"] for each in report["other_conditions"]}
    shown = run("profile", "--bundle", tiny_bundle, "--threads", 1).stdout.splitlines()
    assert any(line.startswith("measured with 1 thread, ") and line.endswith("power mode on battery") for line in shown)
    assert any(line.startswith("kept: costs measured with 1 thread, ") for line in shown)
    listed = json.loads(run("engines", "list", "--bundle", tiny_bundle, "--json").stdout)["engines"]
    step = next(each for each in listed if each["graph"] == "tiny/turbo/step")
    assert [each["condition"]["power_mode"] for each in step["costs"]] == ["on battery", report["other_conditions"][0]["power_mode"]]
    assert step["median_ms"] == step["costs"][0]["median_ms"] > 0
    table = run("engines", "list", "--bundle", tiny_bundle).stdout
    assert "power mode on battery (+1)" in table
    assert "measured with" in table


COMMANDS = {
    "gen": ("a lake",),
    "route": ("a lake",),
    "build-engines": (),
    "profile": (),
    "engines explain": (),
    "label": ("--prompts", "prompts.csv", "--labels", "labels.csv"),
    "fit-router": ("--labels", "labels.csv", "-o", "bundle"),
    "eval-router": ("--labels", "labels.csv"),
}


@pytest.mark.parametrize("threads", [0, -1, 10**9, 10**30, "two", "1.5", "nan"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_runs_engines_takes_threads_and_refuses_impossible_numbers(
    run: Run, built: Path, tiny_bundle: Path, command: str, threads: object
) -> None:
    Path("prompts.csv").write_text("prompt\na lake\n")
    done = run(*command.split(), *COMMANDS[command], "--bundle", tiny_bundle, "--threads", threads)
    assert done.exit_code == 2, done.output
    assert "threads" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_errors_name_the_command_with_the_threads(run: Run, home: Path, tiny_bundle: Path) -> None:
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--threads", 1, "--no-build")
    assert done.exit_code == 5
    assert f"(costroute-rt build-engines --threads 1 --bundle {tiny_bundle})" in done.stderr
    assert run("build-engines", "--bundle", tiny_bundle, "--threads", 1).exit_code == 0
    for costs in home.rglob("costs.json"):
        costs.unlink()
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--threads", 1, "--no-build")
    assert f"(costroute-rt profile --threads 1 --bundle {tiny_bundle})" in done.stderr


def test_what_a_runtime_assumes_is_printed_once_for_every_command_that_opens_one(
    run: Run, built: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costroute_rt.engines.machine.device.power_mode", lambda *_: "on battery")
    for command in (("route", "a lake"), ("gen", "a lake", "--seed", 1), ("gen", "a lake", "--seed", 2, "--json", "--max-ms", 60000)):
        done = run(*command, "--bundle", tiny_bundle)
        assert done.exit_code == 0, done.output
        (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: costs were measured with ")]
        assert note.endswith(f"(costroute-rt profile --bundle {tiny_bundle} measures again)")


def test_doctor_finds_two_distributions_of_onnx_runtime(run: Run, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr("costroute_rt.engines.machine.installation.Installation.packages", both)
    done = run("doctor")
    assert done.exit_code == 1
    command = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert f"fix: they overwrite each other's files: uninstall them, then install one of them ({command})" in done.stdout


def test_doctor_names_the_other_backends(run: Run, built: Path) -> None:
    facts = json.loads(run("doctor", "--json").stdout)["facts"]
    assert {"backend openvino", "backend tensorrt", "backend tensorrt-rtx", "nvidia driver", "cuda-bindings"} <= set(facts)


@pytest.fixture
def quarantined(own_home: Path) -> str:
    """The only engine of a store, quarantined; its digest."""
    from costroute_rt.engines.store.store import Store
    from tests.engines.conftest import quarantine

    store = Store.open(own_home)
    (stored,) = store.engines()
    quarantine(store, stored.key, "it is slower than that of abacus")
    return stored.digest


def test_a_quarantined_engine_is_shown_with_the_reason_and_is_no_damage(run: Run, quarantined: str, tiny_bundle: Path) -> None:
    assert "quarantined: it is slower than that of abacus" in run("engines", "list", "--bundle", tiny_bundle).stdout
    assert run("engines", "verify").exit_code == 0
    assert "1 engines, " in run("doctor").stdout
    assert ", 1 quarantined" in run("doctor").stdout
    assert "quarantined: it is slower" in run("engines", "explain", "--bundle", tiny_bundle).stdout
    planned = json.loads(run("build-engines", "--bundle", tiny_bundle, "--graph", "vae/decode", "--dry-run", "--json").stdout)
    assert [(each["builds"], each["why"]) for each in planned["engines"]] == [(False, "quarantined: it is slower than that of abacus")]
    done = run("build-engines", "--bundle", tiny_bundle, "--graph", "vae/decode", "--json")
    assert done.exit_code == 5
    assert json.loads(done.stdout)["engines"][0]["quarantined"] == "it is slower than that of abacus"
    assert "it is quarantined: it is slower than that of abacus" in done.stderr
    assert f"costroute-rt build-engines --bundle {tiny_bundle} --force)" in done.stderr
    assert run("build-engines", "--bundle", tiny_bundle, "--graph", "vae/decode", "--force").exit_code == 0


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    before = sorted(own_home.rglob("*"))
    report = json.loads(run("build-engines", "--bundle", tiny_bundle, "--dry-run", "--json").stdout)
    assert [each["graph"] for each in report["engines"] if not each["builds"]] == ["tiny/vae/decode"]
    assert report["build_s"] == pytest.approx(sum(each["build_s"] for each in report["engines"]))
    assert report["disk_bytes"] == sum(each["disk_bytes"] for each in report["engines"]) > 0
    shown = run("build-engines", "--bundle", tiny_bundle, "--dry-run").stdout
    assert shown.splitlines()[-1].startswith("4 of 5 engines would be built, in about ")
    assert sorted(own_home.rglob("*")) == before


def test_a_dry_run_without_records_says_unknown(run: Run, home: Path, tiny_bundle: Path) -> None:
    shown = run("build-engines", "--bundle", tiny_bundle, "--dry-run").stdout
    assert "unknown" in shown
    assert "5 of 5 engines would be built, in an unknown time" in shown
    assert json.loads(run("build-engines", "--bundle", tiny_bundle, "--dry-run", "--json").stdout)["build_s"] is None


def test_engines_for_one_size_are_used_for_images_of_it(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    assert run("build-engines", "--bundle", tiny_bundle, "--height", 64).exit_code == 2
    assert run("build-engines", "--bundle", tiny_bundle, "--height", 65, "--width", 64).exit_code == 2
    assert run("build-engines", "--bundle", tiny_bundle, "--height", 64, "--width", 96).exit_code == 0
    shown = run("engines", "list", "--bundle", tiny_bundle).stdout
    assert shown.count("@64x96 ") == 3
    assert run("profile", "--bundle", tiny_bundle, "--height", 64, "--width", 96).exit_code == 0
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--height", 64, "--width", 96, "-o", "a.png", "--no-build")
    assert done.exit_code == 0, done.stderr
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--height", 64, "--width", 64, "-o", "b.png", "--no-build")
    assert done.exit_code == 5
    assert "no engines make images of 64x64; the nearest size they were built for is 64x96" in done.stderr
    assert f"costroute-rt build-engines --bundle {tiny_bundle} --height 64 --width 64" in done.stderr


def test_engines_gc(run: Run, own_home: Path, tiny_bundle: Path) -> None:
    assert run("engines", "gc", "--bundle", tiny_bundle).exit_code == 2
    planned = run("engines", "gc", "--bundle", tiny_bundle, "--max-gb", 0, "--dry-run")
    assert planned.stdout.startswith("would remove ")
    report = json.loads(run("engines", "gc", "--bundle", tiny_bundle, "--max-gb", 1, "--json").stdout)
    assert (report["removed"], report["after_bytes"]) == ([], report["before_bytes"])
    done = run("engines", "gc", "--bundle", tiny_bundle, "--max-gb", 0)
    assert done.stdout.splitlines()[0].endswith("the engines in use alone exceed the limit")
    assert done.stdout.splitlines()[-1].startswith("1 engines; 0 B of ")
    assert json.loads(run("engines", "list", "--bundle", tiny_bundle, "--json").stdout)["engines"] == []


@pytest.mark.parametrize(
    ("prompt", "command"),
    [
        ("a\U000e0001b", r"costroute-rt gen $'a\U000e0001b' --seed 1"),
        ("--help", "costroute-rt gen --seed 1 -- --help"),
    ],
)
def test_info_quotes_prompts_that_a_shell_or_gen_would_take_for_something_else(prompt: str, command: str) -> None:
    assert reproduce({"prompt": prompt, "seed": 1}) == command


def test_info_repeats_that_a_prompt_was_read_literally() -> None:
    assert reproduce({"prompt": "a", "plain_prompt": True}) == "costroute-rt gen a --seed 0 --plain-prompt"
    assert "--plain-prompt" not in str(reproduce({"prompt": "a", "plain_prompt": False}))


def test_doctor_finds_a_store_that_is_a_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("home").touch()
    monkeypatch.setenv("COSTROUTE_HOME", "home")
    assert "store folder" in [problem["name"] for problem in json.loads(run("doctor", "--json").stdout)["problems"]]


def test_info_escapes_control_characters_of_files_from_elsewhere(run: Run) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("costroute", json.dumps({"prompt": "it's\x1b[31m a \\ lake\n", "seed": 1}))
    Image.new("RGB", (8, 8)).save("odd.png", pnginfo=text)
    shown = run("info", "odd.png").stdout
    assert "\x1b" not in shown
    assert r"costroute-rt gen $'it\'s\u001b[31m a \\ lake\u000a' --seed 1" in shown
