"""Exports a source as a bundle: weights stay in the user's files where that is possible, and nothing is done twice.

The bundle is made in a folder beside its place (see `work`) and moved there when it is complete and checked. What was finished before a
run was stopped is used by the next one with the same source, options and versions.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.manifest import MANIFEST
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.engines.bundle.section import MOST_BYTES
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import CostrouteError, OutputError, Reason
from costroute_rt.export.bundle.additions import NOTHING, Additions
from costroute_rt.export.bundle.event import Cancel, Progress, Reporter
from costroute_rt.export.bundle.graph_file import name_text_tokens, write_graph
from costroute_rt.export.bundle.int8 import INT8, check_int8, remove_int8, without_int8, write_int8
from costroute_rt.export.bundle.key import export_key, library_versions
from costroute_rt.export.bundle.manifest import make_manifest
from costroute_rt.export.bundle.notice import copy_notices
from costroute_rt.export.bundle.options import ExportOptions
from costroute_rt.export.bundle.plan import DENOISER, ComponentPlan, ExportPlan, plan_export
from costroute_rt.export.bundle.room import check_room_for
from costroute_rt.export.bundle.token_file import write_tokenizer
from costroute_rt.export.bundle.weights import Placed, place_weights, stored_bytes
from costroute_rt.export.bundle.work import WorkFolder, open_work
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.family.family import Family
from costroute_rt.regular_file import read_regular

if TYPE_CHECKING:
    from onnx import ModelProto


_ADDED = "added"
"""Folder of changed weights in the work folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSettings:
    """What the graphs of a bundle are to do besides running the networks."""

    has_memory: bool
    """Steps carry one more latent."""
    rescales: bool
    """Guided steps can rescale their outputs."""
    clip_skip: int
    """Last layers of the text encoders that are left out."""


class MakeGraphs(Protocol):
    """Makes the graphs of a component, whose regions lie in the folder that the graphs will be in.

    Returns the graphs by use; the keys are those of `ComponentPlan.graphs`, `condition` may be missing.
    """

    def __call__(self, source: Source, component: ComponentPlan, settings: GraphSettings) -> Mapping[str, ModelProto]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What `export_model` did."""

    path: Path
    plan: ExportPlan
    is_new: bool
    """False if the bundle existed, made from the same source with the same options."""
    continued: tuple[str, ...] = ()
    """Parts that an earlier run had finished."""
    placed: Placed = field(default_factory=Placed)
    total_s: float = 0.0


def export_model(
    source: Source,
    target: Path,
    options: ExportOptions,
    *,
    make_graphs: MakeGraphs | None = None,
    additions: Additions = NOTHING,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ExportReport:
    """Write `source` as a bundle to `target`, complete or not at all.

    An existing bundle that was made from the same source with the same options and versions is left as it is; another one is replaced
    with `options.overwrite`. Work that was stopped is continued.
    make_graphs: None is the exporter, which needs torch.
    additions: what to add to the source first.
    Raises BundleError and ConfigError for what cannot be exported, OutputError if `target` cannot be written, CancelledError.
    """
    began_s, plan, made_with = clock(), plan_export(source, options, additions), library_versions()
    opt_out_hub()
    key = export_key(source, options.to_json() | additions.record(), made_with)
    if find_key(target) == key and not options.overwrite:
        return ExportReport(path=target, plan=plan, is_new=False)
    _check_target(target, options)
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        check_room_for(plan, target, copies=options.copies)
        with open_work(Path(os.path.abspath(target)), key) as work:
            export = _Export(plan, work, options, make_graphs or _make_graphs, Reporter(_count_parts(plan), progress, cancel))
            export.run(key, made_with)
            work.move_to(Path(os.path.abspath(target)))
    return ExportReport(
        path=target,
        plan=export.plan,
        is_new=True,
        continued=tuple(export.continued),
        placed=export.placed,
        total_s=clock() - began_s,
    )


def _make_graphs(source: Source, component: ComponentPlan, settings: GraphSettings) -> Mapping[str, ModelProto]:
    logging.getLogger("diffusers.utils.import_utils").setLevel(logging.ERROR)  # it warns of packages that share a name, such as optimum
    from costroute_rt.export.network.graphs import make_graphs

    return make_graphs(source, component.name, component.graphs, **asdict(settings))


def find_key(target: Path) -> str | None:
    """The key of the export that made the bundle at `target`; None for anything that is no complete bundle of `export_model`."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError, CostrouteError):
        key = json.loads(read_regular(target / MANIFEST, MOST_BYTES))["export"]["key"]
        Bundle.open(target, verify=False)
        return str(key)
    return None


def _check_target(target: Path, options: ExportOptions) -> None:
    try:
        os.path.abspath(target).encode()
    except UnicodeEncodeError:
        raise OutputError(target, "its path holds bytes that are not UTF-8, which libraries that read models cannot open") from None
    try:
        check_target(target, force=options.overwrite)
    except OutputError as error:
        if error.reason is Reason.EXISTS and find_key(target) is not None:
            problem = "it exists already, made from another source, with other options or by other versions"
            raise OutputError(target, problem, reason=Reason.EXISTS) from error
        raise


@contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    """Name the bundle, not a file in the folder where it is made, in errors of writing; those of reading the source are BundleErrors."""
    try:
        yield
    except OutputError as error:
        raise OutputError(target, error.problem, reason=error.reason) from error
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error


def _count_parts(plan: ExportPlan) -> int:
    tokenizers = {each.tokenizer for each in plan.components} - {None}
    return bool(plan.additions) + len(tokenizers) + len(plan.components) + 2 * plan.int8 + 1


class _Export:
    """The parts of one export."""

    def __init__(self, plan: ExportPlan, work: WorkFolder, options: ExportOptions, make_graphs: MakeGraphs, reporter: Reporter) -> None:
        self.plan, self._work, self._options, self._make_graphs, self._reporter = plan, work, options, make_graphs, reporter
        self.continued: list[str] = []
        self.placed = Placed()

    def run(self, key: str, made_with: Mapping[str, str]) -> None:
        """Make every part that is not finished, then the manifest; the bundle is then checked and opened."""
        source = self._add()
        parts = {name: self._part(name, partial(self._tokenizer, source, name)) for name in self._tokenizers()}
        for each in self.plan.components:
            parts[each.name] = self._part(each.name, partial(self._component, source, each))
        if self.plan.int8:
            parts[DENOISER + INT8] = self._int8(parts[DENOISER])
        copy_notices(self.plan.source.licenses, self._work.bundle)
        if self.plan.int8:
            self._check_int8(key, made_with, parts)
        self.placed = sum((Placed(*added["placed"]) for added in parts.values() if "placed" in added), Placed())
        self._reporter.begin("checking the bundle")
        Family.open(seal_bundle(self._work.bundle, make_manifest(self.plan, key, made_with, parts)))
        self._reporter.end()

    def _int8(self, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        """What the denoiser with int8 weights adds to the manifest; its files are beside those of the float one."""
        name = DENOISER + INT8
        self._reporter.begin(name)
        added = self._work.find_part(name)
        if added is None:
            added = write_int8(self._work.bundle, denoiser["component"], self._reporter.share)
            self._work.finish_part(name, DENOISER, added)
        else:
            self.continued.append(name)
        self._reporter.end()
        return added

    def _check_int8(self, key: str, made_with: Mapping[str, str], parts: dict[str, dict[str, Any]]) -> None:
        """Add the image gate of int8 weights to their part, or leave them out with a note; the manifest is written again afterwards."""
        self._reporter.begin("comparing images of int8 weights")
        bundle = seal_bundle(self._work.bundle, make_manifest(self.plan, key, made_with, parts))
        try:
            gate = check_int8(bundle, DENOISER, lambda: self._reporter.share(None))
        finally:
            (self._work.bundle / MANIFEST).unlink()  # nothing must load what was not checked
        if gate.problem is None:
            parts[DENOISER + INT8] = {**parts[DENOISER + INT8], "image_gate": gate.to_json()}
        else:
            del parts[DENOISER + INT8]
            remove_int8(self._work.bundle, DENOISER)
            pool, note = without_int8(self.plan.pool, DENOISER), f"int8: left out, {gate.problem}"
            self.plan = replace(self.plan, int8=False, pool=pool, notes=(*self.plan.notes, note))
        self._reporter.end()

    def _add(self) -> Source:
        """The source with its additions; what an earlier run has computed is kept."""
        if not self.plan.additions:
            return self.plan.source
        self._reporter.begin("LoRAs and textual inversions")
        added = self.plan.additions.apply(self.plan.source, self._work.root / _ADDED, self._reporter.share)
        self._reporter.end()
        return added

    def _tokenizers(self) -> Sequence[str]:
        return tuple(dict.fromkeys(each.tokenizer for each in self.plan.components if each.tokenizer is not None))

    def _part(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a part adds to the manifest: from an earlier run, or made now. What is unfinished when it fails is removed."""
        self._reporter.begin(name)
        added = self._work.find_part(name)
        if added is None:
            folder = self._work.clear(name)
            try:
                added = make()
            except BaseException:
                self._work.discard(folder)
                raise
            self._work.finish_part(name, name, added)
        else:
            self.continued.append(name)
        self._reporter.end()
        return added

    def _tokenizer(self, source: Source, name: str) -> dict[str, Any]:
        encoder = next(each.name for each in self.plan.components if each.tokenizer == name)
        return {"tokenizer": write_tokenizer(source, name, source.networks[encoder], self._work.bundle / name)}

    def _component(self, source: Source, component: ComponentPlan) -> dict[str, Any]:
        """Weights, then graphs that refer to them."""
        network, copied = source.networks[component.name], 0
        total = stored_bytes(network.weights.values())

        def on_bytes(count: int) -> None:
            nonlocal copied
            copied += count
            self._reporter.share(copied / max(total, 1))

        folder, own = self._work.bundle / component.name, self._work.root.resolve()
        network, placed = place_weights(network, folder, copies=self._options.copies, own=own, on_bytes=on_bytes)
        source = replace(source, networks={**source.networks, component.name: network})
        pool = self.plan.pool
        settings = GraphSettings(has_memory=pool.has_memory, rescales=pool.rescales, clip_skip=self._options.clip_skip)
        graphs = self._make_graphs(source, replace(component, network=network), settings)
        paths = {use: f"{component.name}/{use}.onnx" for use in graphs}
        for use, model in graphs.items():
            self._reporter.share(None)
            if component.role == "denoiser":
                name_text_tokens(model)
            write_graph(model, self._work.bundle / paths[use])
        weights = [file.relative_to(self._work.bundle).as_posix() for file in network.files()]
        section: dict[str, Any] = {"role": component.role, "graphs": paths, "weights": weights, "weights_bytes": total}
        section |= {"tokenizer": component.tokenizer} if component.tokenizer is not None else {}
        section |= {"guidance": self.plan.pool.guidance} if component.role == "denoiser" else {}
        specs = {paths[use]: to_json(graph_spec(model)) for use, model in graphs.items()}
        return {"component": section, "graphs": specs, "placed": [placed.written_bytes, placed.linked_bytes]}
