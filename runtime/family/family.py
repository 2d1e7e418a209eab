"""A family: one bundle, open, and its candidates described without any engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from costroute_rt.call import Call
from costroute_rt.candidate import Candidate, Pool
from costroute_rt.engines.building.shape import check_bundle_size, with_size
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import CARRIED, MANIFEST
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError, ConfigError, EngineError, Reason
from costroute_rt.family.calls import at_size, candidate_calls, encoders_of, for_images, read_pool, sources_of
from costroute_rt.request import Request
from costroute_rt.sampling.step_table import StepTable
from costroute_rt.sampling.tables import Tables


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """Image sizes for which engines were built."""

    sizes: frozenset[Size] = frozenset()
    """Sizes that have engines of their own."""
    has_usual: bool = True
    """Whether the engines exist that take any size the bundle makes."""

    def resolve(self, bundle: Bundle, name: str, size: Size) -> str:
        """Name of the engine to run for images of that size; name: of the graph's usual one.

        Raises EngineError, with the nearest size that was built, where there is none.
        """
        if size in self.sizes:
            return with_size(bundle, [name], size)[0]
        if not self.has_usual:
            near = min(self.sizes, key=lambda each: abs(each[0] - size[0]) + abs(each[1] - size[1]))
            problem = f"no engines make images of {size[0]}x{size[1]}; the nearest size they were built for is {near[0]}x{near[1]}"
            wanted = str(EngineName.parse(name)._replace(size=size))
            raise EngineError(problem, reason=Reason.SIZE_MISSING, engine=wanted, bundle=str(bundle.root))
        return name

    def first(self, bundle: Bundle) -> Size:
        """The bundle's usual size where engines make it, else the smallest that they make."""
        usual = bundle.image.height, bundle.image.width
        return usual if self.has_usual or usual in self.sizes else min(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A bundle with its tokenizers, candidates and step tables, ready to use."""

    bundle: Bundle
    pool: Pool
    tokenizers: Mapping[str, Tokenizer]
    tables: Tables
    sizes: EngineSizes = field(default_factory=EngineSizes)

    @classmethod
    def open(cls, bundle: Bundle) -> Family:
        """Compile the step tables of every candidate and read the tokenizers.

        Raises BundleError for a scheduler that cannot be compiled, or not to that many steps, and for a tokenizer that cannot be used.
        """
        pool, image = read_pool(bundle), bundle.image
        try:
            tables = Tables(bundle.schedulers)
            for candidate in pool:
                table = tables.table(candidate.scheduler, candidate.num_inference_steps, image.tokens(image.height, image.width))
                _check_memory(bundle, candidate, table)
        except ConfigError as error:
            raise BundleError(bundle.root / MANIFEST, f"a scheduler in it cannot be used: {error}", "export the bundle again") from error
        return cls(bundle=bundle, pool=pool, tokenizers=open_tokenizers(bundle), tables=tables)

    @property
    def name(self) -> str:
        """Of the family, such as `postcard`."""
        return self.bundle.family

    @property
    def uses_zeros(self) -> bool:
        """Whether zeros stand for a negative prompt that was not given, rather than the empty text."""
        return self.bundle.negative_prompt == "zeros"

    def size(self, request: Request) -> Size:
        """Height and width of a request's images in pixels; raises ConfigError for a size that the family cannot make."""
        image = self.bundle.image
        height = image.height if request.height is None else request.height
        width = image.width if request.width is None else request.width
        return check_bundle_size(image, height, width)

    def table(self, candidate: Candidate, size: Size) -> StepTable:
        """A candidate's whole run, its guidance scale in each row."""
        table = self.tables.table(candidate.scheduler, candidate.num_inference_steps, self.bundle.image.tokens(*size))
        return table.with_guidance(candidate.guidance_scale)

    def encoders(self, candidate: Candidate) -> tuple[str, ...]:
        """Names of the text encoders that a candidate's denoiser takes outputs of."""
        return encoders_of(self.bundle, candidate.denoiser)

    def sources(self, candidate: Candidate) -> tuple[str, ...]:
        """Names of the conditioning tensors that a candidate's denoiser takes."""
        return sources_of(self.bundle, candidate.denoiser)

    def calls(self, candidate: Candidate, size: Size, *, count: int = 1, has_new_negative: bool = True) -> tuple[Call, ...]:
        """Every engine run for `count` images of that size, in order; raises EngineError where no engine makes that size."""
        rows = len(self.tables.table(candidate.scheduler, candidate.num_inference_steps, self.bundle.image.tokens(*size)))
        calls = candidate_calls(self.bundle, candidate, rows=rows, has_new_negative=has_new_negative)
        own = (self.sizes.resolve(self.bundle, call.engine, size) for call in calls)
        return for_images((at_size(self.bundle, call, size, name) for call, name in zip(calls, own, strict=True)), count)

    def engine(self, component: str, graph: str) -> str:
        """Name of the usual engine of a graph."""
        return str(EngineName(self.name, component, graph))

    def with_sizes(self, sizes: EngineSizes) -> Family:
        """The same family on engines of these sizes."""
        return replace(self, sizes=sizes)


def open_tokenizers(bundle: Bundle) -> dict[str, Tokenizer]:
    """The bundle's tokenizers by name; raises BundleError."""
    return {
        name: Tokenizer.open(
            bundle.path(spec.file),
            max_length=spec.max_length,
            pad=spec.pad_id,
            pad_side=spec.pad_side,
            template=(spec.prefix, spec.suffix),
            drop=spec.drop,
            lower_case=spec.lower_case,
        )
        for name, spec in bundle.tokenizers.items()
    }


def _check_memory(bundle: Bundle, candidate: Candidate, table: StepTable) -> None:
    denoiser = bundle.components[candidate.denoiser]
    path = denoiser.graphs[denoiser.step_graph(candidate.guidance_scale)]
    if table.has_memory and CARRIED not in bundle.graphs[path].inputs:
        problem = f"{candidate.name} has the scheduler {candidate.scheduler}, which carries one more latent, and {path} has no input for it"
        raise BundleError(bundle.root / MANIFEST, problem, "export the bundle again with this scheduler")
