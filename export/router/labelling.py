"""The labelling job: makes and scores images of prompts x candidates x seeds, one row at a time."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import GUIDANCE_DEFAULTS
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.section import canonical_json
from costroute_rt.error import ConfigError, LabelError, PromptError, Reason
from costroute_rt.export.router.anchors import choose_anchors
from costroute_rt.export.router.csv_file import MARK
from costroute_rt.export.router.label_file import LabelFile, open_label_file
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import PromptRow
from costroute_rt.export.router.scorers import Scorer, score_image


class Generator(Protocol):
    """The part of `Runtime` that labelling needs."""

    def generate(self, prompt: str, *, candidate: str, seed: int, plain_prompt: bool) -> Any:
        """A Result."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run."""

    done: int
    """Rows written by this run."""
    total: int
    """Rows that were missing when it started."""
    remaining_s: float
    """Estimated from the rows so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to label, and with which scorers."""

    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    """Numbers of a prompt's images; see `image_seed`."""
    scorers: tuple[Scorer, ...]
    """The score of the first goes into the column score, those of others into score_NAME."""
    fingerprints: Mapping[str, str]
    """By the candidates' names; see `fingerprints`."""
    anchors: int | None = None
    """Label only so many of the prompts that the table has labels for."""
    plain_prompt: bool = False
    """As in requests for images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Result of a run."""

    written: int
    kept: int
    """Requested rows that the table had already."""
    prompts: int
    refused: Mapping[str, str]
    """Reasons why prompts were refused, by prompt_id."""
    truncated: int
    """Prompts that were too long for the text encoder and lost their end."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def label_prompts(
    runtime: Generator,
    prompts: Sequence[PromptRow] | None,
    path: str | Path,
    request: Request,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Adds the missing rows to the table at `path`, which may be new. Each row is in the file before the next image is started.

    prompts: may be None with `anchors`, for the prompts of the table.
    Raises LabelError (unusable table or prompts, a score that is not a number), OutputError (no space, no permission).
    """
    with open_label_file(Path(path), clock) as table:
        chosen = _choose(table, prompts, request)
        _check_scorable(table.path, chosen, request)
        _check_table(table, chosen, request)
        wanted = [(row, seed, name) for seed in request.seeds for row in chosen for name in request.candidates]
        todo = [(row, seed, name) for row, seed, name in wanted if (row.prompt_id, name, seed) not in table.content.done]
        run = _Run(runtime, table, request)
        started = clock()
        for done, (row, seed, name) in enumerate(todo, 1):
            run.add(row, seed, name)
            progress(Progress(done, len(todo), (clock() - started) / done * (len(todo) - done)))
    return Report(written=run.written, kept=len(wanted) - len(todo), prompts=len(chosen), refused=run.refused, truncated=len(run.truncated))


class _Run:
    """Makes and scores one image after another."""

    def __init__(self, runtime: Generator, table: LabelFile, request: Request) -> None:
        self._runtime, self._table, self._request = runtime, table, request
        self.written = 0
        self.refused: dict[str, str] = {}
        self.truncated: set[str] = set()

    def add(self, row: PromptRow, seed: int, name: str) -> None:
        """Adds one row, unless the prompt is refused."""
        if row.prompt_id in self.refused:
            return
        noise = image_seed(row.prompt, seed)
        try:
            result = self._runtime.generate(row.prompt, candidate=name, seed=noise, plain_prompt=self._request.plain_prompt)
        except PromptError as error:
            self.refused[row.prompt_id] = str(error)
            return
        if result.truncated:
            self.truncated.add(row.prompt_id)
        made_by = f"{name}, seed {seed}"
        scores = [score_image(scorer, result.pixels[0], row, table=self._table.path, made_by=made_by) for scorer in self._request.scorers]
        cells = {
            **row.extra,
            "prompt_id": row.prompt_id,
            "prompt": row.prompt,
            "candidate": name,
            "seed": str(seed),
            "image_seed": str(noise),
            "cost_ms": f"{result.timings.total_ms - result.timings.swap_ms:.2f}",
            "scorer": self._request.scorers[0].name,
            MARK: self._request.fingerprints[name],
            **{column: f"{score:.6g}" for column, score in zip(score_columns(self._request.scorers), scores, strict=True)},
        }
        self._table.append(cells, (row.prompt_id, name, seed))
        self.written += 1


def image_seed(prompt: str, seed: int) -> int:
    """The noise seed of image number `seed` of a prompt: different for each prompt, the same for all candidates.

    With the same noise for all prompts, a candidate's luck with it would not average out over prompts.
    """
    return zlib.crc32(f"{seed}\n{prompt}".encode())


def score_columns(scorers: Sequence[Scorer]) -> list[str]:
    """Names of the score columns."""
    return ["score", *(f"score_{scorer.name}" for scorer in scorers[1:])]


def fingerprints(bundle: Bundle) -> dict[str, str]:
    """12 hexadecimal digits for each candidate: a hash of weights, tokenizer, schedule, steps, guidance and size."""

    def weights(name: str) -> list[str]:
        component = bundle.components[name]
        files = component.weights or sorted(component.graphs.values())
        return [bundle.files[file].sha256 for file in files]

    encoders = [name for name, component in bundle.components.items() if component.role == "text_encoder"]
    tokenizers = [bundle.files[spec.file].sha256 for _, spec in sorted(bundle.tokenizers.items())]
    shared = [*tokenizers, bundle.image.height, bundle.image.width, [weights(name) for name in encoders]]

    def one(row: Mapping[str, Any]) -> str:
        how = [row["num_inference_steps"], row["guidance_scale"], dict(bundle.schedulers[row["scheduler"]])]
        changed = {name: row[name] for name, usual in GUIDANCE_DEFAULTS.items() if row.get(name, usual) != usual}
        how += [changed] if changed else []
        text = canonical_json([shared, how, weights(row["denoiser"]), weights(row["decoder"])])
        return hashlib.sha256(text).hexdigest()[:12]

    return {str(row["name"]): one(row) for row in bundle.pool}


def pool_fingerprints(pool: Pool) -> dict[str, str]:
    """`fingerprints` of the candidates of all bundles of a pool, by their names in it."""
    return {name: mark for bundle in pool.bundles.values() for name, mark in fingerprints(bundle).items()}


def check_candidates(names: Sequence[str], known: Mapping[str, str]) -> None:
    """Raises ConfigError for a candidate that no bundle has."""
    for name in names:
        if name not in known:
            raise ConfigError("candidate", name, "one of " + ", ".join(known))


def _choose(table: LabelFile, prompts: Sequence[PromptRow] | None, request: Request) -> list[PromptRow]:
    """The prompts to label, completed by further columns of the table."""
    if request.anchors is None:
        if prompts is None:
            raise ConfigError("prompts", None, "a table of prompts, or anchors")
        return [_completed(row, table) for row in prompts]
    if not table.content.done:
        raise LabelError(table.path, "it has no labels to anchor to", "label all candidates first, without anchors", reason=Reason.LABELS)
    known = table.content.prompts if prompts is None else {row.prompt_id: _completed(row, table) for row in prompts}
    found = choose_anchors(LabelTable.open(table.path), request.anchors, request.candidates)
    missing = [prompt_id for prompt_id in found if prompt_id not in known]
    if missing:
        problem = f"{len(missing)} of its {len(found)} anchors are not among the given prompts, such as {missing[0]!r}"
        raise LabelError(table.path, problem, "give the prompts that the table was made from")
    return [known[prompt_id] for prompt_id in found]


def _completed(row: PromptRow, table: LabelFile) -> PromptRow:
    before = table.content.prompts.get(row.prompt_id)
    if before is None:
        return row
    if before.prompt != row.prompt:
        problem = f"prompt_id {row.prompt_id!r} is {before.prompt!r} in the table and {row.prompt!r} among the prompts"
        raise LabelError(table.path, problem, "give prompts other ids, or label into another table")
    return replace(row, extra={**before.extra, **row.extra})


def _check_scorable(path: Path, prompts: Sequence[PromptRow], request: Request) -> None:
    """Raises LabelError, before the first image, if a scorer cannot score a prompt."""
    for scorer in request.scorers:
        for row in prompts:
            problem = scorer.check(row)
            if problem:
                raise LabelError(path, f"prompt {row.prompt_id!r}: {problem}", "add it to the prompts, or choose another scorer")


def _check_table(table: LabelFile, prompts: Sequence[PromptRow], request: Request) -> None:
    """Starts a new table; raises LabelError if the new rows do not belong into an old one."""
    extra = list(dict.fromkeys(name for row in prompts for name in row.extra))
    scores = score_columns(request.scorers)
    if not table.content.header:
        table.start(["prompt_id", "prompt", *extra, "candidate", "seed", *scores, "cost_ms", "scorer", MARK, "image_seed"])
        return
    problem = next(_misfits(table, prompts, request, [*extra, *scores]), None)
    if problem:
        raise LabelError(table.path, problem, "label into another table")


def _misfits(table: LabelFile, prompts: Sequence[PromptRow], request: Request, needed: Sequence[str]) -> Iterator[str]:
    """Reasons, in words, why this request's rows do not belong into the table."""
    header, content = table.content.header, table.content
    numbered = ["seed"] if any(request.seeds) else []
    named = ["prompt_id"] if any(row.prompt_id != row.prompt for row in prompts) else []
    missing = [name for name in (*named, *numbered, *needed) if name not in header]
    if missing:
        yield f"it has no column {', '.join(missing)}, only {', '.join(header)}"
    unfilled = [name for name in header if name.startswith("score_") and name not in needed]
    if unfilled and MARK in header:
        yield f"it has {', '.join(unfilled)}, which no chosen scorer fills"
    if content.scorers - {request.scorers[0].name}:
        yield f"its score is by {', '.join(sorted(content.scorers))}, but {request.scorers[0].name} is the first scorer now"
    for name in request.candidates:
        if content.fingerprints.get(name, request.fingerprints[name]) != request.fingerprints[name]:
            yield f"its labels of {name} were made with other weights or settings than the bundle has now"
