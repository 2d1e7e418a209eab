"""Families: an open bundle with its tokenizers, candidates and step tables, without engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from costroute_rt.call import Call, Stage
from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import CARRIED, MANIFEST, MOST_CHUNKS, ImageSpec
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.size import check_bundle_size, depends_on_size, takes_chunks, with_size
from costroute_rt.engines.bundle.tokenizer import Tokenizer, Tokens
from costroute_rt.error import BundleError, ConfigError, EngineError, Reason
from costroute_rt.family.calls import candidate_calls, image_encoder, missing_image_encoder, read_pool, sources_of
from costroute_rt.family.conditioning import Tensors, encode_text, tokenize
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.plan import Plan
from costroute_rt.family.prompt_syntax import strip_syntax
from costroute_rt.family.texts import Texts
from costroute_rt.family.tiling import Tiling, find_tiling
from costroute_rt.request import Request
from costroute_rt.sampling.image_run import begin_at_image, steps_of
from costroute_rt.sampling.step_table import StepTable
from costroute_rt.sampling.tables import Tables

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

Variant = tuple[str, str | None, float | None]
"""Name of a candidate, of the scheduler that replaces its own, and the strength of an initial image."""
Key = TypeVar("Key")
Value = TypeVar("Value")
WHOLE_AREA = 2.0
"""Largest area of an image, relative to that of the default size, that is decoded in one; larger ones are decoded in tiles."""
_KEPT = 256
"""Capacity of a family's caches of plans, calls and tokens, which grow with what is requested."""


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """Image sizes for which engines were built."""

    sizes: frozenset[Size] = frozenset()
    """Sizes that have engines of their own."""
    has_usual: bool = True
    """Whether the usual engines exist, which take any size that the bundle can make."""

    def resolve(self, bundle: Bundle, name: str, size: Size) -> str:
        """Name of the engine to run for images of that size, given the name of the graph's usual engine.

        Raises EngineError, which names the nearest size, if no engine makes that size.
        """
        if size in self.sizes:
            return with_size(bundle, [name], size)[0]
        if not self.has_usual and depends_on_size(bundle, name):
            near = min(self.sizes, key=lambda each: abs(each[0] - size[0]) + abs(each[1] - size[1]))
            problem = f"no engines make images of {size[0]}x{size[1]}; the nearest size they were built for is {near[0]}x{near[1]}"
            wanted = str(EngineName.parse(name)._replace(size=size))
            raise EngineError(problem, reason=Reason.SIZE_MISSING, engine=wanted, bundle=str(bundle.root))
        return name

    def first(self, bundle: Bundle) -> Size:
        """The bundle's default size if engines make it, else the smallest size that they make."""
        usual = bundle.image.height, bundle.image.width
        return usual if self.has_usual or usual in self.sizes else min(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A bundle with its tokenizers, candidates and step tables, ready to use."""

    bundle: Bundle
    pool: tuple[Candidate, ...]
    tokenizers: Mapping[str, Tokenizer]
    tables: Tables
    sizes: EngineSizes = field(default_factory=EngineSizes)
    twins: Mapping[str, str] = field(default_factory=dict)
    """Engines that another family of the pool has too: the name of that one, which runs for both."""
    image_encoders: frozenset[str] = frozenset()
    """Names of the engines for initial images that are ready."""
    whole_area: float = WHOLE_AREA
    """Largest area, relative to that of the default size, that is decoded in one."""
    _plans: dict[tuple[Variant, Size], Plan] = field(default_factory=dict, init=False, repr=False)
    _relatives: dict[str, tuple[Candidate, ...]] = field(default_factory=dict, init=False, repr=False)
    _calls: dict[tuple[Variant, Size, int, int, int], tuple[Call, ...]] = field(default_factory=dict, init=False, repr=False)
    _tokens: dict[tuple[str, str, bool], Tokens] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, bundle: Bundle) -> Family:
        """Compile the step tables of every candidate and read the tokenizers.

        Raises BundleError for a scheduler that cannot be compiled with a candidate's number of steps, and for an unusable tokenizer.
        """
        pool, image = read_pool(bundle), bundle.image
        try:
            tables = Tables(bundle.schedulers)
            for candidate in pool:
                for size in image.sizes:
                    table = tables.table(candidate.scheduler, candidate.num_inference_steps, image.tokens(*size))
                _check_memory(bundle, candidate, table)
        except ConfigError as error:
            raise BundleError(bundle.root / MANIFEST, f"a scheduler in it cannot be used: {error}", "export the bundle again") from error
        return cls(bundle=bundle, pool=pool, tokenizers=open_tokenizers(bundle), tables=tables)

    @property
    def name(self) -> str:
        """Name of the family, such as `postcard`, or the alias of its bundle in a pool."""
        return self.bundle.name

    @property
    def uses_zeros(self) -> bool:
        """Whether a missing negative prompt means zeros instead of the empty text."""
        return self.bundle.negative_prompt == "zeros"

    def size(self, request: Request) -> Size:
        """Height and width of a request's images in pixels; raises ConfigError for a size that the family cannot make."""
        return request_size(self.bundle.image, request)

    def relatives(self, candidate: Candidate) -> tuple[Candidate, ...]:
        """The other candidates that differ from this one in nothing but the number of steps and the decoder."""
        found = self._relatives.get(candidate.name)
        if found is None:
            name, steps, decoder = candidate.name, candidate.num_inference_steps, candidate.decoder
            same = [each for each in self.pool if replace(each, name=name, num_inference_steps=steps, decoder=decoder) == candidate]
            found = self._relatives[name] = tuple(each for each in same if each.name != name)
        return found

    def begins_with_images(self, candidate: Candidate) -> bool:
        """Whether the bundle has a graph that encodes images for the candidate."""
        return image_encoder(self.bundle, candidate.decoder) is not None

    def plan(self, candidate: Candidate, size: Size, scheduler: str | None = None, strength: float | None = None) -> Plan:
        """The candidate's plan for images of that size, compiled once.

        scheduler: name of one that replaces the candidate's. strength: of an initial image; None without one.
        Raises EngineError if no engine makes that size, or encodes initial images, ConfigError if the candidate cannot run with that
        scheduler.
        """
        key = (candidate.name, scheduler, strength), size
        found = self._plans.get(key)
        if found is None:
            found = _keep(self._plans, key, self._compile(candidate, size, scheduler, strength))
        return found

    def calls(
        self,
        candidate: Candidate,
        size: Size,
        count: int = 1,
        texts: int = 1,
        chunks: int = 1,
        scheduler: str | None = None,
        strength: float | None = None,
    ) -> tuple[Call, ...]:
        """Every engine run for `count` images, in order, cached; raises as `plan`.

        texts: runs of each text encoder, one for each chunk that is not kept. chunks: those of the longer text.
        """
        key = (candidate.name, scheduler, strength), size, count, texts, chunks
        found = self._calls.get(key)
        if found is None:
            found = _keep(self._calls, key, self.plan(candidate, size, scheduler, strength).calls(count, texts, chunks))
        return found

    def tokenize(self, text: str, names: Iterable[str], *, is_plain: bool = False) -> dict[str, Tokens]:
        """`conditioning.tokenize` with these tokenizers, cached: each request needs the same tokens several times."""
        found = {}
        for name in names:
            key = name, text, is_plain
            tokens = self._tokens.get(key)
            if tokens is None:
                tokens = _keep(self._tokens, key, tokenize(self.tokenizers, text, [name], is_plain=is_plain)[name])
            found[name] = tokens
        return found

    def texts(self, request: Request, plan: Plan) -> Texts:
        """The request's texts for a plan. Raises PromptError for one that is far too long, or has a wrong syntax."""
        names, is_plain, negative = plan.tokenizers, request.plain_prompt, request.negative_prompt
        return Texts(
            prompt=self.tokenize(request.prompt, names, is_plain=is_plain),
            negative=self.tokenize(negative or "", names, is_plain=is_plain) if plan.candidate.is_guided else None,
            empty=self.tokenize("", names),
            has_zeros=negative is None and self.uses_zeros,
        )

    def words(self, request: Request) -> str:
        """The prompt as routers read it: without weights and brackets, if prompts have a syntax."""
        has_syntax = any(tokenizer.chunking is not None for tokenizer in self.tokenizers.values())
        return strip_syntax(request.prompt) if has_syntax and not request.plain_prompt else request.prompt

    def encode(self, encoder: str, tokens: Mapping[str, Tokens], engine: Engine) -> Tensors:
        """Outputs of a text encoder for one chunk, by the names that denoisers use; engine: its own. Records no time."""
        return encode_text(self.bundle, self.tokenizers, encoder, tokens, partial(run_on_host, engine))

    def _compile(self, candidate: Candidate, size: Size, scheduler: str | None, strength: float | None) -> Plan:
        bundle, image = self.bundle, self.bundle.image
        named = self.tables.named(candidate.scheduler, scheduler)
        table = self.tables.table(candidate.scheduler, candidate.num_inference_steps, image.tokens(*size), instead=scheduler)
        if scheduler is not None and table.has_memory and not _takes_memory(bundle, candidate):
            why = f"the graphs of {candidate.name} have no input for the latent that it carries from row to row; export the bundle again"
            raise ConfigError("scheduler", scheduler, f"another one, such as DPM++ 2M: {why}")
        steps_run = candidate.num_inference_steps
        if strength is not None:
            if not self.begins_with_images(candidate):
                raise ConfigError("init_image", strength, f"None: {candidate.name} cannot begin with an image")
            table, steps_run = begin_at_image(named.config, table, steps_run, strength), steps_of(steps_run, strength)
        usual = candidate_calls(bundle, candidate, rows=len(table), steps=steps_run, has_image=strength is not None)
        whole = [self._at_size(call, size) for call in usual]
        tiling = self._tiling(size) if whole[-1].engine == usual[-1].engine else None  # else one is built for just that size
        sized = [self._in_tiles(call, tiling) for call in whole]
        named_calls = [(EngineName.parse(call.engine), self._shared(call)) for call in sized]
        calls = tuple(call for _, call in named_calls)
        encoders = {name.component: call for name, call in named_calls if call.stage is Stage.TEXT and name.graph == "encode"}
        conditions = [call for name, call in named_calls if name.graph == "condition"]
        steps = {name.graph: call for name, call in named_calls if call.stage is Stage.DENOISE}
        main = bundle.components[candidate.denoiser].step_graph(candidate.guidance_scale)
        sources = sources_of(bundle, candidate)
        return Plan(
            candidate=candidate,
            size=size,
            latent_shape=(image.latent_channels, size[0] // image.vae_scale_factor, size[1] // image.vae_scale_factor),
            sources=sources,
            tokenizers=tuple(name for name in self.tokenizers if self._reads(name, encoders, sources)),
            image_calls=calls,
            encoders=encoders,
            condition=conditions[0] if conditions else None,
            step=steps[main],
            decode=next(call for call in calls if call.stage is Stage.DECODE),
            tiling=tiling,
            encode=next((call for call in calls if call.stage is Stage.ENCODE), None),
            table=table.with_guidance(np.array(candidate.guidance(len(table), steps_run))),
            scheduler=named.config,
            scheduler_note=named.note,
            plain_step=steps.get("step") if main != "step" else None,
            plain_condition=conditions[1] if len(conditions) > 1 else None,
        )

    def _at_size(self, call: Call, size: Size) -> Call:
        """The call with the engine that makes images of that size, and with its area relative to the profiled size."""
        usual = self.bundle.image.height * self.bundle.image.width
        is_encoder = call.stage is Stage.ENCODE
        own = self._image_encoder(call.engine, size) if is_encoder else self.sizes.resolve(self.bundle, call.engine, size)
        grows = call.stage in (Stage.ENCODE, Stage.DENOISE, Stage.DECODE) and own == call.engine
        return replace(call, engine=own, area=size[0] * size[1] / usual if grows else 1.0)

    def _tiling(self, size: Size) -> Tiling | None:
        """How the latent of a large image is cut; None if it is not.

        Engines for a list of sizes take what lies between the least and the largest.
        """
        image = self.bundle.image
        usual, least = (image.height, image.width), (image.patch_size * image.vae_scale_factor,) * 2
        if not image.any_size:
            heights, widths = zip(*image.sizes, strict=True)
            least = min(*heights, image.height), min(*widths, image.width)
        height, width, *sides = (side // image.vae_scale_factor for side in (*size, *usual, *least))
        return find_tiling(height, width, (sides[0], sides[1]), self.whole_area, (sides[2], sides[3]))

    def _in_tiles(self, call: Call, tiling: Tiling | None) -> Call:
        """The call of a decoder with one run for each tile; other calls as they are."""
        if tiling is None or call.stage is not Stage.DECODE:
            return call
        image = self.bundle.image
        tile = tiling.height * tiling.width * image.vae_scale_factor**2
        return replace(call, times=len(tiling), tiles=len(tiling), area=tile / (image.height * image.width))

    def _image_encoder(self, usual: str, size: Size) -> str:
        """The engine that encodes images of that size, which need not exist where those of its other graphs do."""
        found = next((name for name in (*with_size(self.bundle, [usual], size), usual) if name in self.image_encoders), None)
        if found is None:
            raise missing_image_encoder(usual)
        return found

    def _reads(self, tokenizer: str, encoders: Iterable[str], sources: Iterable[str]) -> bool:
        """Whether these text encoders, or a denoiser that takes `sources`, read the tokenizer's tokens."""
        own = (f"{tokenizer}.attention_mask", f"{tokenizer}.length")
        return any(self.bundle.components[name].tokenizer == tokenizer for name in encoders) or any(name in own for name in sources)

    def _shared(self, call: Call) -> Call:
        """The call with the engine that runs for several families."""
        return replace(call, engine=self.twins[call.engine]) if call.engine in self.twins else call

    def with_sizes(self, sizes: EngineSizes, twins: Mapping[str, str] | None = None) -> Family:
        """The same family with engines for these sizes; twins: see the field."""
        return replace(self, sizes=sizes, twins=self.twins if twins is None else twins)

    def with_image_encoders(self, names: frozenset[str]) -> Family:
        """The same family with these engines for initial images."""
        return replace(self, image_encoders=names)


def request_size(image: ImageSpec, request: Request) -> Size:
    """Height and width of a request's images in pixels, those of the bundle where it has none; raises ConfigError for a wrong size."""
    height, width = request.height, request.width
    if height is None and width is None:
        return image.height, image.width
    return check_bundle_size(image, image.height if height is None else height, image.width if width is None else width)


def _keep(cache: dict[Key, Value], key: Key, value: Value) -> Value:
    """Store the value, which is returned: another thread may clear the cache at any time."""
    if len(cache) >= _KEPT:
        cache.clear()
    cache[key] = value
    return value


def open_tokenizers(bundle: Bundle) -> dict[str, Tokenizer]:
    """The bundle's tokenizers by name; raises BundleError."""
    most_chunks = MOST_CHUNKS if takes_chunks(bundle) else 1
    return {
        name: Tokenizer.open(
            bundle.path(spec.file),
            max_length=spec.max_length,
            pad=spec.pad_id,
            pad_side=spec.pad_side,
            template=(spec.prefix, spec.suffix),
            drop=spec.drop,
            lower_case=spec.lower_case,
            most_chunks=0 if spec.prompt_syntax == "none" else most_chunks,
            read=bundle.read_path,
        )
        for name, spec in bundle.tokenizers.items()
    }


def _check_memory(bundle: Bundle, candidate: Candidate, table: StepTable) -> None:
    if table.has_memory and not _takes_memory(bundle, candidate):
        path = _step_path(bundle, candidate)
        problem = f"{candidate.name} has the scheduler {candidate.scheduler}, which carries one more latent, and {path} has no input for it"
        raise BundleError(bundle.root / MANIFEST, problem, "export the bundle again with this scheduler")


def _takes_memory(bundle: Bundle, candidate: Candidate) -> bool:
    return CARRIED in bundle.graphs[_step_path(bundle, candidate)].inputs


def _step_path(bundle: Bundle, candidate: Candidate) -> str:
    denoiser = bundle.components[candidate.denoiser]
    return denoiser.graphs[denoiser.step_graph(candidate.guidance_scale)]
