from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from costroute_rt import read_settings
from tests.cli.conftest import Run
from tests.runtime.fakes import FakeDevice


def images() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_gen_writes_an_image_and_says_how_it_went(gen: Run) -> None:
    done = gen("a red house by a lake", "--max-ms", 60000, "--seed", 7, "-o", "postcard.png")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("postcard.png: tiny-base@8, seed 7, ")
    assert "(predicted " in done.stdout
    assert done.stdout.endswith("budget 60000 ms met\n")
    with Image.open("postcard.png") as image:
        assert image.size == (64, 64)


def test_gen_in_a_pipe_is_quiet(gen: Run) -> None:
    assert gen("a lake", "-o", "a.png").stderr == ""


def test_gen_names_the_file_after_the_prompt_and_seed(gen: Run) -> None:
    assert gen("A red house!", "--seed", 7).exit_code == 0
    assert images() == ["a-red-house-7.png"]


def test_gen_json_is_one_object(gen: Run) -> None:
    done = gen("a lake", "--seed", 1, "--candidate", "tiny-turbo@1", "--json", "-o", "a.png")
    report = json.loads(done.stdout)
    assert report["outputs"] == ["a.png"]
    assert report["met"] is None
    assert report["settings"]["candidate"] == "tiny-turbo@1"


def test_gen_count_makes_one_file_for_each_seed(gen: Run) -> None:
    assert gen("a lake", "--seed", 5, "--count", 2, "-o", "x.png").exit_code == 0
    assert [read_settings(name)["seed"] for name in ("x-1.png", "x-2.png")] == [5, 6]


def test_first_use_builds_the_engines_and_reports_it(run: Run, home: Path, tiny_bundle: Path) -> None:
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--candidate", "tiny-turbo@1", "-o", "a.png")
    assert done.exit_code == 0, done.stderr
    assert "first use: building" in done.stderr


def test_no_build_names_the_command_that_builds(run: Run, home: Path, tiny_bundle: Path) -> None:
    done = run("gen", "a lake", "--bundle", tiny_bundle, "--no-build")
    assert done.exit_code == 5
    assert "costroute-rt build-engines" in done.stderr
    assert images() == []


def test_prompts_make_one_image_a_line_and_resume(gen: Run) -> None:
    Path("lines.txt").write_text("# places\na lake\n\na house 🏠\n", encoding="utf-8")
    assert gen("--prompts", "lines.txt", "-o", "out/", "--candidate", "tiny-turbo@1").exit_code == 0
    assert images() == ["lines.txt", "out/0002-a-lake.png", "out/0004-a-house.png"]
    before = Path("out/0002-a-lake.png").read_bytes()
    Path("out/0004-a-house.png").unlink()
    resumed = gen("--prompts", "lines.txt", "-o", "out/", "--candidate", "tiny-turbo@1")
    assert "1 image made; 1 line kept: " in resumed.stderr
    assert resumed.stdout.startswith("out/0004-a-house.png: ")
    assert Path("out/0002-a-lake.png").read_bytes() == before
    gen("--prompts", "lines.txt", "-o", "out/", "--candidate", "tiny-turbo@1", "--overwrite", "--seed", 3)
    assert read_settings("out/0002-a-lake.png")["seed"] == 3


def test_prompts_from_standard_input(gen: Run) -> None:
    assert gen("--prompts", "-", "-o", ".", "--json", stdin="a lake\na house\n").stdout.count("\n") == 2


def test_one_bad_line_does_not_stop_the_others(gen: Run) -> None:
    done = gen("--prompts", "-", "-o", "out", stdin="a lake\n\x00\na house\n")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: line 2: ")
    assert len(images()) == 2


@pytest.mark.parametrize("budget", [("--total-s", 60), ("--mean-ms", 20_000)])
def test_one_budget_serves_a_file(gen: Run, budget: tuple[str, float]) -> None:
    done = gen("--prompts", "-", "-o", "out", "--json", *budget, stdin="a lake\n\x00\na house\na tree\n")
    assert done.exit_code == 2  # the line that holds no text
    failed, *report = (json.loads(line) for line in done.stdout.splitlines())
    assert (failed["line"], failed["error"]["type"]) == (2, "PromptError")
    assert [each["settings"]["candidate"] for each in report] == ["tiny-base@8"] * 3
    assert [each["max_ms"] for each in report[:2]] == [None, None]
    assert report[2]["met"]
    seconds = 60 if budget[0] == "--total-s" else 80
    assert re.search(rf"3 prompts in \d+\.\d s of {seconds}\.0 s\n$", done.stderr)
    assert len(images()) == 3


def test_a_tight_budget_is_divided_and_reported_when_missed(gen: Run, fake: FakeDevice) -> None:
    few = gen("--prompts", "-", "-o", "few", "--json", "--mean-ms", 30, "--or-fastest", stdin="a lake\na house\na tree\n")
    assert [json.loads(line)["settings"]["candidate"] for line in few.stdout.splitlines()] == ["turbo@1"] * 3
    assert few.stderr.endswith("3 prompts in 0.1 s of 0.1 s: budget missed\n")


def test_a_budget_that_no_candidate_fits_writes_nothing(gen: Run, fake: FakeDevice) -> None:
    none = gen("--prompts", "-", "-o", "none", "--mean-ms", 30, stdin="a lake\na house\na tree\n")
    assert none.exit_code == 3
    assert "nothing fits in 30 ms: the fastest candidate, turbo@1, needs about 35 ms" in none.stderr
    assert not Path("none").exists()


def test_time_that_some_prompts_leave_is_used_for_others(gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", "--json", "--total-s", 0.16, stdin="a lake\na house\na tree\n")
    assert sorted(json.loads(line)["settings"]["candidate"] for line in done.stdout.splitlines()) == ["turbo@1", "turbo@2", "turbo@2"]
    assert done.stderr.endswith("3 prompts in 0.1 s of 0.2 s\n")


@pytest.mark.parametrize(("total_s", "code", "end"), [(0.06, 0, "budget 60 ms met\n"), (0.03, 3, "")])
def test_a_budget_for_one_line_is_that_prompts(gen: Run, fake: FakeDevice, total_s: float, code: int, end: str) -> None:
    done = gen("--prompts", "-", "-o", "out", "--total-s", total_s, stdin="a lake\n")
    assert (done.exit_code, done.stdout.endswith(end), Path("out").exists()) == (code, True, code == 0)


def test_info_reads_the_settings_back_and_repeats_the_image(gen: Run, run: Run, tiny_bundle: Path) -> None:
    gen("it's a lake", "--seed", 9, "--negative-prompt", "snow", "-o", "a.png")
    report = json.loads(run("info", "a.png", "--json").stdout)
    assert (report["prompt"], report["seed"], report["candidate"]) == ("it's a lake", 9, "tiny-base@8")
    assert report["command"].startswith("""costroute-rt gen 'it'"'"'s a lake' --seed 9 --candidate tiny-base@8 --negative-prompt snow""")
    gen("it's a lake", "--seed", 9, "--negative-prompt", "snow", "--candidate", "tiny-base@8", "-o", "b.png")
    with Image.open("a.png") as first, Image.open("b.png") as second:
        assert first.tobytes() == second.tobytes()


def same_pixels(first: str, second: str) -> bool:
    with Image.open(first) as one, Image.open(second) as other:
        return one.tobytes() == other.tobytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp"])
def test_the_command_of_info_repeats_the_image_of_every_format(gen: Run, run: Run, suffix: str) -> None:
    """Also where the seed is larger than random ones, and where the prompt looks like an option."""
    assert gen("--seed", 2**63 - 2, "--negative-prompt", "-snow", "--count", 2, "-o", f"a.{suffix}", "--", "-a lake").exit_code == 0
    words = shlex.split(json.loads(run("info", f"a-2.{suffix}", "--json").stdout)["command"])
    assert words[:2] == ["costroute-rt", "gen"]
    assert gen("-o", f"b.{suffix}", *words[2:]).exit_code == 0
    assert read_settings(f"b.{suffix}")["seed"] == 2**63 - 1
    assert same_pixels(f"a-2.{suffix}", f"b.{suffix}")


def test_a_negative_prompt_without_effect_is_reported(gen: Run, run: Run) -> None:
    done = gen("a lake", "--negative-prompt", "snow", "--candidate", "tiny-turbo@1", "-o", "a.png")
    assert done.exit_code == 0
    assert "note: the negative prompt was not used: tiny-turbo@1 has no classifier-free guidance\n" in done.stderr
    assert "--negative-prompt" not in json.loads(run("info", "a.png", "--json").stdout)["command"]
    done = gen("a lake", "--negative-prompt", "snow", "-o", "b.jpg")
    assert "note" not in done.stderr
    assert "--negative-prompt snow" in run("info", "b.jpg").stdout


def test_count_numbers_the_files_of_every_format(gen: Run) -> None:
    assert gen("a lake", "--count", 2, "-o", "one.two.jpeg").exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["one.two-1.jpeg", "one.two-2.jpeg"]


BAD_INPUT = {
    "empty prompt": (2, ["", "-o", "x.png"]),
    "blank prompt": (2, ["  ", "-o", "x.png"]),
    "NUL in the prompt": (2, ["a\0lake", "-o", "x.png"]),
    "no prompt": (2, ["-o", "x.png"]),
    "prompt and file of prompts": (2, ["a lake", "--prompts", "-"]),
    "no file of prompts": (2, ["--prompts", "missing.txt"]),
    "folder of prompts": (2, ["--prompts", "."]),
    "file without prompts": (2, ["--prompts", "-"]),
    "10,000 words": (2, ["lake " * 10_000]),
    "budget 0": (2, ["a lake", "--max-ms", "0"]),
    "budget below 0": (2, ["a lake", "--max-ms", "-5"]),
    "budget not a number": (2, ["a lake", "--max-ms", "nan"]),
    "budget too small": (3, ["a lake", "--max-ms", "0.001"]),
    "unknown candidate": (2, ["a lake", "--candidate", "nothing@1"]),
    "size not a multiple": (2, ["a lake", "--height", "63"]),
    "seed too large": (2, ["a lake", "--seed", str(2**63)]),
    "seeds beyond the largest": (2, ["a lake", "--seed", str(2**63 - 1), "--count", "2"]),
    "more images than seeds": (2, ["a lake", "--count", str(2**33)]),
    "budget of a file without one": (2, ["a lake", "--total-s", "5"]),
    "two budgets of a file": (2, ["--prompts", "-", "--total-s", "5", "--mean-ms", "5"]),
    "budgets of a file and of an image": (2, ["--prompts", "-", "--total-s", "5", "--max-ms", "5"]),
    "budget of a file and a candidate": (2, ["--prompts", "-", "--mean-ms", "5", "--candidate", "tiny-base@8"]),
    "no images": (2, ["a lake", "--count", "0"]),
    "unknown option": (2, ["a lake", "--steps", "4"]),
    "folder that is not there": (7, ["a lake", "-o", "missing/x.png"]),
    "folder that takes no files": (7, ["a lake", "-o", "/proc/x.png"]),
    "no format of ours": (2, ["a lake", "-o", "x.gif"]),
    "unknown backend": (2, ["a lake", "--backend", "abacus"]),
}


@pytest.mark.parametrize(("code", "arguments"), list(BAD_INPUT.values()), ids=list(BAD_INPUT))
def test_bad_input_is_one_line_and_leaves_nothing_behind(code: int, arguments: list[str], gen: Run) -> None:
    done = gen(*arguments, stdin="")
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert images() == []


@pytest.mark.parametrize(("provider", "code"), [("abacus", 2), ("directml" if sys.platform != "win32" else "coreml", 6)])
def test_providers_that_are_unknown_or_missing(provider: str, code: int, gen: Run) -> None:
    done = gen("a lake", "--provider", provider)
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert images() == []


def test_missing_bundle_is_a_bundle_error(run: Run) -> None:
    assert run("gen", "a lake", "--bundle", "missing").exit_code == 4


@pytest.mark.parametrize("prompt", ["lake " * 60, "a house 🏠 by a lake 🌊", "夕焼け"], ids=["60 words", "emoji", "Japanese"])
def test_odd_prompts_make_images(prompt: str, gen: Run) -> None:
    done = gen(prompt, "--candidate", "tiny-turbo@1", "-o", "x.png")
    assert done.exit_code == 0, done.stderr
    assert images() == ["x.png"]
    assert done.stderr.count("\n") == (len(prompt) > 100)
    assert ("its end was left out" in done.stderr) == (len(prompt) > 100)


def test_without_stderr_images_are_made_all_the_same(gen: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.cli.progress.sys", SimpleNamespace(stderr=None))
    assert gen("a lake", "--candidate", "tiny-turbo@1", "-o", "x.png").exit_code == 0


def test_a_name_that_is_no_text_is_shown_escaped(gen: Run) -> None:
    done = gen("a lake", "--candidate", "tiny-turbo@1", "-o", "\udcff.png")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(r"\udcff.png: ")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CUDA."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.usefixtures("no_cuda")
def test_missing_cuda_is_an_error_that_names_the_library(gen: Run) -> None:
    done = gen("a lake", "--provider", "cuda", "-o", "a.png")
    assert done.exit_code == 6
    assert "onnxruntime_providers_cuda." in done.stderr
    assert images() == []


@pytest.mark.usefixtures("no_cuda")
def test_an_allowed_fallback_is_recorded_in_the_result_and_the_image(gen: Run, caplog: pytest.LogCaptureFixture) -> None:
    asked = ("a lake", "--provider", "cuda", "--precision", "float16", "--allow-fallback", "--candidate", "tiny-turbo@1", "-o", "a.png")
    done = gen(*asked)
    assert done.exit_code == 0, done.stderr
    assert ", on onnxruntime cpu as a fallback" in done.stdout
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("running on onnxruntime cpu float32: asked for provider cuda, found only cpu")
    settings = read_settings("a.png")
    assert (settings["backend"], settings["provider"], settings["precision"]) == ("onnxruntime", "cpu", "float32")
    assert settings["fallback"].startswith("asked for provider cuda, found only cpu")
    assert json.loads(gen(*asked, "--json").stdout)["settings"]["fallback"] == settings["fallback"]
    done = gen("a lake", "--provider", "cpu", "--allow-fallback", "--candidate", "tiny-turbo@1", "-o", "b.png")
    assert "instead" not in done.stdout
    assert read_settings("b.png")["fallback"] is None


@pytest.mark.usefixtures("no_cuda", "built")
def test_commands_report_a_fallback(run: Run, tiny_bundle: Path) -> None:
    for command in (("build-engines",), ("build-engines", "--dry-run"), ("profile",), ("engines", "explain"), ("route", "a lake")):
        refused = run(*command, "--bundle", tiny_bundle, "--provider", "cuda")
        assert refused.exit_code == 6
        done = run(*command, "--bundle", tiny_bundle, "--provider", "cuda", "--allow-fallback", "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["fallback"].startswith("asked for provider cuda, found only cpu")
    report = json.loads(run("build-engines", "--bundle", tiny_bundle, "--json").stdout)
    assert (report["backend"], report["provider"], report["precision"], report["fallback"]) == ("onnxruntime", "cpu", "float32", None)


@pytest.mark.usefixtures("fake")
def test_notes_about_the_same_thing_are_printed_once_and_counted(gen: Run) -> None:
    long = "lake " * 60
    done = gen("--prompts", "-", "-o", "out", stdin=f"a lake\n{long}\n{long}a\n{long}b\n")
    text = "the prompt is longer than the text encoder reads; its end was left out"
    assert done.stderr == f"note: line 2: {text}\nnote: 2 more lines: {text}\n"


@pytest.mark.usefixtures("fake")
def test_a_file_in_a_pipe_prints_one_line_for_each_image_and_nothing_else(gen: Run) -> None:
    done = gen("--prompts", "-", "-o", "out", stdin="a lake\na house\n")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["out/0001-a-lake.png", "out/0002-a-house.png"]
    assert done.stderr == ""


@pytest.mark.usefixtures("fake")
def test_lines_that_share_a_file_name_are_refused_one_by_one(gen: Run) -> None:
    done = gen("--prompts", "-", "-o", "{slug}.png", stdin="a lake\na lake\na house\n")
    assert done.exit_code == 7
    assert images() == ["a-house.png", "a-lake.png"]
    assert "error: line 2: cannot write a-lake.png: an earlier line has the same file name" in done.stderr


@pytest.mark.usefixtures("fake")
def test_one_name_for_all_lines_is_refused_before_any_work_unless_there_is_one_line(gen: Run) -> None:
    assert gen("--prompts", "-", "-o", "x.png", stdin="a lake\na house\n").exit_code == 2
    assert images() == []
    assert gen("--prompts", "-", "-o", "x.png", stdin="a lake\n").exit_code == 0


def test_a_folder_that_cannot_be_made_ends_the_run_before_any_work(gen: Run, fake: FakeDevice) -> None:
    Path("file").write_text("")
    done = gen("--prompts", "-", "-o", "file/out/", stdin="a lake\na house\n")
    assert (done.exit_code, done.stderr.count("\n")) == (7, 1)
    assert fake.engines["tiny/vae/decode"].calls == 1  # of the warm-up


def test_standard_input_that_is_closed_is_an_error(gen: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.cli import prompt_file

    monkeypatch.setattr(prompt_file, "sys", SimpleNamespace(stdin=None))
    done = gen("--prompts", "-")
    assert done.exit_code == 2
    assert "standard input is closed" in done.stderr
