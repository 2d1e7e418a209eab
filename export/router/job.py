"""The jobs of the commands `fit-router` and `eval-router`, from files to files."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.backends.spec import make_spec
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, LabelError, OutputError, PromptError, Reason
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import LEAST_PROMPTS, comparable_prompts, complete_prompts
from costroute_rt.export.router.csv_file import suggest
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.evaluate import Evaluation, evaluate, split_seeds
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.grid import ESTIMATORS, FitOptions
from costroute_rt.export.router.label_set import LabelSet
from costroute_rt.export.router.labelling import pool_fingerprints
from costroute_rt.export.router.missing import completed
from costroute_rt.export.router.report import Example, write_page
from costroute_rt.export.router.score_mix import Scale, Scores
from costroute_rt.export.router.states import read_states
from costroute_rt.export.router.tagging import add_tags, split_tags
from costroute_rt.export.router.transformer import import_torch, save_router
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.prompt_syntax import strip_syntax
from costroute_rt.routing.pool_writing import check_pool_target, with_pool_router
from costroute_rt.routing.prompt_encoder import EngineEncoder, HashedEncoder, PromptEncoder, StatesEncoder, TextStates
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import open_pool_router, text_encoder_sha256, with_router
from costroute_rt.routing.router_network import encoder_network
from costroute_rt.runtime import Runtime

Say = Callable[[str], None]
TIMED_PROMPTS = 200
EXAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Tables of labels, and the setup of the engines needed to use them."""

    labels: str | Path | None = None
    score: Scores = "score"
    category: str | None = None
    rater: str | None = None
    votes: str | Path | None = None
    setup: Setup = USUAL
    home: str | Path | None = None

    def open(self, pool: Pool, scales: Mapping[str, Scale] | None = None) -> LabelSet:
        """The tables (scales: see `LabelTable.open`); raises LabelError, also if images were made with other weights or settings."""
        options: dict[str, Any] = {"score": self.score, "category": self.category, "rater": self.rater, "scales": scales}
        table = LabelSet.open(self.labels, self.votes, **options)
        made_with, known = table.fingerprints, pool_fingerprints(pool)
        other = [name for name, mark in known.items() if made_with.get(name, frozenset()) - {mark}]
        if other:
            problem = f"its labels of {', '.join(other)} were made with other weights or settings than the {_kind(pool)} has now"
            raise LabelError(table.path, problem, "label these candidates again, into another table")
        return table

    def runtime(self, pool: Pool) -> Runtime:
        """A runtime on these engines, which are built if they are missing."""
        how: dict[str, Any] = {"backend": self.setup.backend, "provider": self.setup.provider, "precision": self.setup.precision}
        where: dict[str, Any] = {"bundle": pool.root} if pool.is_bundle else {"pool": pool.root}
        return Runtime.open(**where, home=self.home, threads=self.setup.threads, build=True, **how)

    def states(self, bundle: Bundle, prompts: Sequence[str], say: Say) -> TextStates:
        """The text encoder's states of these prompts."""
        return read_states(bundle, prompts, home=self.home, setup=self.setup, progress=say)


def fit_bundle(bundle: Bundle, source: Source, output: Path, **options: Any) -> Router:
    """`fit_pool` of a bundle by itself; output: the bundle with the new router."""
    return fit_pool(Pool.of_bundle(bundle), source, output, **options)


def fit_pool(
    pool: Pool,
    source: Source,
    output: Path,
    *,
    encoder: str = "states",
    estimators: Sequence[str] = ESTIMATORS,
    strict: bool = False,
    force: bool = False,
    say: Say = lambda _: None,
) -> Router:
    """Fits a router for the candidates of a pool and writes the pool, or the bundle that it is, with this router to `output`.

    encoder: `states` (of the first bundle), `states:NAME` (of that bundle of the pool), `hashed`, or a folder with a sentence encoder as
    transformers saves it; with `+tags` after it, tags of the prompt are read as well. strict: see `FitOptions`. Raises LabelError,
    ConfigError, PromptError, BackendError (torch is needed but missing), OutputError (before any work: `output` exists, or with `force` is
    no mere bundle or pool).
    """
    if not pool.is_bundle:
        check_pool_target(output, force=force)
    elif (replaced := check_target(output, force=force)) is not None:
        say(f"{output} will be replaced: {replaced}")
    encoder, has_tags = split_tags(encoder)
    reads_states = encoder.partition(":")[0] == "states"
    states_bundle = _states_bundle(pool, encoder) if reads_states or "transformer" in estimators else None
    options = FitOptions(estimators=tuple(estimators), strict=strict)
    if "transformer" in estimators:
        import_torch()
    table = source.open(pool)
    for note in table.notes():
        say(f"note: {note}")
    cells = table.cells([row["name"] for row in pool.rows])
    others = [name for name in table.candidates if name not in cells.candidates]
    if others:
        say(f"note: labels of {', '.join(others)} are left out: the {_kind(pool)} has no such candidate{suggest(others, cells.candidates)}")
    check_comparable(table.path, cells, say)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        reader: PromptEncoder = HashedEncoder()
        if not reads_states and encoder != "hashed":
            reader = stack.enter_context(opened_sentence_encoder(Path(encoder).expanduser(), folder, source))
            say(f"reading prompts with {reader.to_json()['name']}")
        states = None if states_bundle is None else source.states(states_bundle, cells.prompts, say)
        if reads_states and states is not None:
            reader = StatesEncoder(states.states.shape[2])
        cells = replace(cells, prompts=read_words(states_bundle or _first_bundle(pool), cells.prompts))
        router = fit_router(
            cells,
            add_tags(reader, cells.prompts, states) if has_tags else reader,
            states,
            pool=pool.rows,
            labels=table.to_json(),
            text_encoder=None if states_bundle is None else text_encoder_sha256(states_bundle),
            options=options,
            progress=say,
        )
        save_router(router, folder)
        if pool.is_bundle:
            with_router(next(iter(pool.bundles.values())), folder, output, force=force)
        else:
            with_pool_router(pool, folder, output, states_bundle=None if states_bundle is None else states_bundle.name, force=force)
    return router


def _kind(pool: Pool) -> str:
    return "bundle" if pool.is_bundle else "pool"


def _states_bundle(pool: Pool, encoder: str) -> Bundle:
    """The bundle whose text encoder reads prompts for the router: that named in `encoder`, else the first; raises ConfigError."""
    stated = encoder.partition(":")[2] or next(iter(pool.bundles), "")
    if stated not in pool.bundles:
        known = f"states:NAME with one of {', '.join(pool.bundles)}" if pool.bundles else "hashed: no candidate has a bundle with states"
        raise ConfigError("encoder", encoder, known)
    return pool.bundles[stated]


def check_comparable(path: Path, cells: Cells, say: Say) -> None:
    """Reports how many cells are labelled, if some are not; before any long work.

    Only prompts labelled for two candidates or more show which is better, so raises LabelError for a table that has too few of them
    although it has enough prompts.
    """
    comparable = comparable_prompts(cells)
    if complete_prompts(cells).all() or len(cells.candidates) < 2:
        return
    texts, all_texts = (len(np.unique(groups)) for groups in (cells.groups[comparable], cells.groups))
    if not texts or texts < LEAST_PROMPTS <= all_texts:
        found = f"only {texts} of {all_texts} prompts are labelled for two candidates or more"
        problem = f"{found}, but only those show which candidate is better, and {LEAST_PROMPTS} are needed"
        raise LabelError(path, problem, "label more candidates for the same prompts", reason=Reason.LABELS)
    known, complete = int((cells.count > 0).sum()), int(complete_prompts(cells).sum())
    found = f"{complete} of {len(cells)} prompts are labelled for every candidate ({known} of {cells.count.size} cells)"
    say(f"note: {found}; the others count too")


@contextmanager
def opened_sentence_encoder(model: Path, folder: Path, source: Source) -> Iterator[EngineEncoder]:
    """The encoder in the folder `model`, exported to `folder`, on an engine of its own."""
    from costroute_rt.export.router.sentence_encoder import export_sentence_encoder

    settings, network = export_sentence_encoder(model, folder), encoder_network(1)
    backend, spec = source.setup.tool(), make_spec(source.setup.provider, source.setup.threads, precision=source.setup.precision)
    with tempfile.TemporaryDirectory() as built:
        backend.build(folder / network.file, Path(built), spec)
        with backend.open(Path(built), spec) as engine:
            yield EngineEncoder.open(folder, lambda component, graph: engine, **settings)


@contextmanager
def opened_router(pool: Pool, source: Source) -> Iterator[Router]:
    """The pool's router with its engines, which are built if they are missing."""
    store, holder = Store.open(source.home), pool.router
    if holder is None:
        open_pool_router(pool)  # raises
        return
    engines = EngineSet(lambda name: open_engine(holder, store, name, source.setup))
    router = open_pool_router(pool, engines.of_family(holder.name))
    names = [f"{holder.name}/{network.engine}" for network in router.networks]
    if names:
        build_engines(holder, store, names, source.setup, measure=False)
    try:
        yield router
    finally:
        engines.close()


def evaluate_bundle(bundle: Bundle, source: Source, *, html: Path | None = None, say: Say = lambda _: None) -> Evaluation:
    """`evaluate_pool` of a bundle by itself."""
    return evaluate_pool(Pool.of_bundle(bundle), source, html=html, say=say)


def evaluate_pool(pool: Pool, source: Source, *, html: Path | None = None, say: Say = lambda _: None) -> Evaluation:
    """Evaluates the pool's router on these labels, which it should not have been fitted to, and writes the page to `html`.

    If the labels have costs, they are compared with the runtime's predictions. Raises BundleError without a router, LabelError,
    OutputError.
    """
    table, names = source.open(pool), [row["name"] for row in pool.rows]
    for note in table.notes():
        say(f"note: {note}")
    cells = table.cells(names)
    check_comparable(table.path, cells, say)
    with opened_router(pool, source) as router:
        table = in_units_of(router, table, pool, source)
        cells = table.cells(names)
        return _evaluate(pool, source, router, table, cells, html, say)


def in_units_of(router: Router, table: LabelSet, pool: Pool, source: Source) -> LabelSet:
    """The labels; if they mix the scores that the router was fitted to, standardised as those were."""
    found = router.record.get("labels", {}).get("scales", {})
    if not found or table.table is None or found.keys() != table.table.scales.keys():
        return table
    return source.open(pool, {name: Scale(*map(float, scale)) for name, scale in found.items()})


def _evaluate(pool: Pool, source: Source, router: Router, table: LabelSet, cells: Cells, html: Path | None, say: Say) -> Evaluation:
    states = source.states(pool.bundles[pool.states_bundle], cells.prompts, say) if router.needs_states and pool.states_bundle else None
    words = read_words(pool.bundles.get(pool.states_bundle or "") or _first_bundle(pool), cells.prompts)
    mean, error, trust = router.estimate(words, states)
    widths = None if router.reliability is None else router.reliability.label_widths(trust)
    estimates = Estimates(
        mean=mean, standard_error=error, trust=trust, average=router.average.mean, label_widths=widths, evidence=router.evidence
    )
    say(f"evaluating on {len(cells)} prompts")
    found = evaluate(
        cells,
        estimates,
        halves=split_seeds(lambda seeds: table.cells(cells.candidates, seeds=seeds), table.seeds),
        predicted_ms=_predict_ms(pool, source, say) if cells.has_cost and pool.bundles else None,
        router_ms=time_router(router, words, states),
        facts={"router": _facts(router), "labels": table.to_json()},
    )
    if router.record.get("labels", {}).get("sha256") == table.sha256:
        say("note: the router was fitted to these labels, so its gain here means little")
    fitted, judged = router.record.get("labels", {}).get("score"), table.to_json().get("score")
    if "labels" in router.record and fitted != judged:
        say(f"note: the router was fitted to {fitted or 'votes'}, and is judged by {judged or 'votes'}")
    if html is not None:
        examples = make_examples(pool, source, cells, estimates, say) if cells.has_cost and pool.bundles else []
        title = f"Router of the {next(iter(pool.bundles))} family" if pool.is_bundle else f"Router of the pool {pool.root.name}"
        write_text(html, write_page(found, title=title, reason=f"Routes on {router.routes_on}: {router.reason}", examples=examples))
    return found


def _first_bundle(pool: Pool) -> Bundle | None:
    return next(iter(pool.bundles.values()), None)


def read_words(bundle: Bundle | None, prompts: Sequence[str]) -> tuple[str, ...]:
    """Prompts as routers read them: without weights and brackets, if prompts of the bundle's models have that syntax."""
    if bundle is None or all(spec.prompt_syntax == "none" for spec in bundle.tokenizers.values()):
        return tuple(prompts)
    return tuple(map(_strip, prompts))


def _strip(prompt: str) -> str:
    try:
        return strip_syntax(prompt)
    except PromptError:  # labelled as a plain prompt
        return prompt


def time_router(router: Router, prompts: Sequence[str], states: TextStates | None, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median milliseconds to judge one prompt whose states are known, over some of the prompts."""
    rows = np.linspace(0, len(prompts) - 1, min(len(prompts), TIMED_PROMPTS)).astype(int)
    router.judge(prompts[0], None if states is None else states.select([0]))
    times = []
    for row in rows:
        own = None if states is None else states.select([row])
        started = clock()
        router.judge(prompts[row], own)
        times.append(1000 * (clock() - started))
    return float(np.median(times))


def make_examples(pool: Pool, source: Source, cells: Cells, estimates: Estimates, say: Say) -> list[Example]:
    """Images of prompts routed to the cheapest and to the most expensive candidates, at the middle of the range of mean costs."""
    from PIL import Image

    kept = completed(cells)
    routed = estimates.route(kept.cost_ms)
    spent = routed.points(kept.cost_ms, kept.mean).cost
    choice = routed.choice[int(np.argmin(np.abs(spent - (spent.min() + spent.max()) / 2)))]
    order = np.argsort(kept.cost_ms[choice], kind="stable")
    has_bundle = [each.bundle is not None for each in pool.judged]
    order = np.array([row for row in order.tolist() if has_bundle[choice[row]]], dtype=np.int64)
    rows = list(dict.fromkeys([*order[: EXAMPLES // 2].tolist(), *order[len(order) - EXAMPLES // 2 :].tolist()]))
    say(f"making {len(rows)} example images")
    examples = []
    with source.runtime(pool) as runtime:
        for row in rows:
            result = runtime.generate(kept.prompts[row], seed=0, candidate=kept.candidates[choice[row]])
            png = io.BytesIO()
            Image.fromarray(result.pixels[0]).save(png, "PNG")
            examples.append(
                Example(prompt=kept.prompts[row], candidate=kept.candidates[choice[row]], ms=result.actual_ms, png=png.getvalue())
            )
    return examples


def write_text(path: Path, text: str) -> None:
    """Writes a file and the folders it needs; raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def _predict_ms(pool: Pool, source: Source, say: Say) -> dict[str, float]:
    """The runtime's prediction for each candidate on this device, with engines loaded."""
    with source.runtime(pool) as runtime:
        if runtime.assumes is not None:
            say(f"note: {runtime.assumes}")
        return {option.candidate.name: option.ms for option in runtime.route("a lake").options}


def _facts(router: Router) -> dict[str, Any]:
    return {
        "routes_on": router.routes_on,
        "reason": router.reason,
        "encoder": router.encoder.to_json(),
        "estimator": router.estimator.to_json(),
        "prompts": len(router.prompts),
        "near": router.near,
        "far": router.far,
        "record": dict(router.record),
    }
