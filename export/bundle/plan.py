"""What an export makes, found out without loading weights and without torch: components, files, sizes, candidates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.manifest import step_graphs
from costroute_rt.error import BundleError
from costroute_rt.export.bundle.additions import NOTHING, Additions
from costroute_rt.export.bundle.int8 import int8_bytes, with_int8
from costroute_rt.export.bundle.options import ExportOptions, check_size
from costroute_rt.export.bundle.weights import by_file, can_share, is_linkable, stored_bytes
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.families import find_family
from costroute_rt.export.families.detect import Detected, detect_kind, is_original
from costroute_rt.export.families.pool import PoolPlan, plan_pool
from costroute_rt.export.families.spec import FamilySpec

DENOISER, DECODER, TINY = "unet", "vae", "tiny"
"""Names of components; the tiny decoder is the network of that name, if the source has one."""

_DECODER_GRAPHS = {DECODER: ("decode", "encode"), TINY: ("decode",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """One network of the bundle."""

    network: Network
    role: str
    graphs: tuple[str, ...]
    """Uses of its graphs: encode, condition, step ...; a denoiser may turn out to have nothing to condition."""
    tokenizer: str | None = None

    @property
    def name(self) -> str:
        """Its name, and that of its folder."""
        return self.network.name

    @property
    def weights_bytes(self) -> int:
        return stored_bytes(self.network.weights.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """A source and options that were checked."""

    source: Source
    family: FamilySpec
    kind: Detected
    components: tuple[ComponentPlan, ...]
    sizes: tuple[tuple[int, int], ...]
    """(height, width), the usual one first."""
    any_size: bool
    pool: PoolPlan
    additions: Additions
    """What is added to the source first."""
    int8: bool
    """Whether a denoiser with int8 weights is added."""
    notes: tuple[str, ...]

    def expected_bytes(self, folder: Path, *, copies: bool) -> tuple[int, int]:
        """Bytes of weights that are expected to be written, and to be linked, for a bundle in `folder`, which exists."""
        written = linked = 0
        for component in self.components:
            for file, regions in by_file(component.network).items():
                count = stored_bytes(regions.values())
                is_linked = not copies and is_linkable(file) and can_share(file, folder)
                written, linked = (written, linked + count) if is_linked else (written + count, linked)
        written += int8_bytes(self.source.networks[DENOISER]) if self.int8 else 0
        return written + self.additions.output_bytes(self.source), linked


def plan_export(source: Source, options: ExportOptions, additions: Additions = NOTHING) -> ExportPlan:
    """Check all that can be checked without loading weights; raises BundleError for the source, ConfigError for the options.

    additions: what will be added to the source.
    """
    family = find_family(source.family)
    _check_networks(source, family)
    kind = detect_kind(source, options.kind, additions.loras)
    decoders = tuple(name for name in (DECODER, TINY) if name in source.networks)
    pool = plan_pool(
        source,
        family,
        kind,
        denoiser=DENOISER,
        decoders=decoders,
        steps=options.steps,
        schedulers=options.schedulers,
        guidance_ends=options.guidance_ends,
        guidance_rescale=options.guidance_rescale,
    )
    encoders = [
        ComponentPlan(network=source.networks[name], role="text_encoder", graphs=("encode",), tokenizer=tokenizer)
        for name, tokenizer in family.text_encoders.items()
    ]
    steps = tuple(sorted({graph for row in pool.rows for graph in step_graphs(pool.guidance, row)}))
    denoiser = ComponentPlan(network=source.networks[DENOISER], role="denoiser", graphs=("condition", *steps))
    rest = [ComponentPlan(network=source.networks[name], role="decoder", graphs=_DECODER_GRAPHS[name]) for name in decoders]
    return ExportPlan(
        source=source,
        family=family,
        kind=kind,
        components=(*encoders, denoiser, *rest),
        sizes=_sizes(source, family, kind, options),
        any_size=options.any_size,
        pool=with_int8(pool, DENOISER) if options.int8 else pool,
        additions=additions,
        int8=options.int8,
        notes=(*source.notes, *pool.notes),
    )


def nearest_folder(path: Path) -> Path:
    """The first folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def whole_number(network: Network, key: str, default: int, path: Path) -> int:
    """A setting of a network; raises BundleError unless it is a whole number above 0."""
    value = network.config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BundleError(path, f"{network.name} has {key} {value!r}: expected a whole number above 0", "download the checkpoint again")
    return value


def vae_scale_factor(source: Source) -> int:
    """Pixels per latent cell, along each axis."""
    widths = source.networks[DECODER].config.get("block_out_channels", [64])
    if not isinstance(widths, list | tuple) or not 1 <= len(widths) <= 8:
        raise BundleError(source.path, f"vae has block_out_channels {widths!r}: expected a list", "download the checkpoint again")
    return int(2 ** (len(widths) - 1))


def _check_networks(source: Source, family: FamilySpec) -> None:
    needed = (*family.text_encoders, DENOISER, DECODER)
    missing = [name for name in needed if name not in source.networks]
    missing += [name for name in family.text_encoders.values() if name not in source.tokenizers]
    if missing:
        raise BundleError(source.path, f"it has no {' and no '.join(missing)}, which {family.title} needs", "download the whole checkpoint")


def _sizes(source: Source, family: FamilySpec, kind: Detected, options: ExportOptions) -> tuple[tuple[int, int], ...]:
    """The sizes that were asked for, or the model's own square."""
    if options.sizes:
        multiple = max(family.size_multiple_px, vae_scale_factor(source))
        return tuple(dict.fromkeys(check_size(size, multiple) for size in options.sizes))
    own = kind.kind.side_px if source.path.is_file() and is_original(source.name, kind.kind) else None  # its settings are a template's
    if own is not None:
        return ((own, own),)
    factor, cells = vae_scale_factor(source), source.networks[DENOISER].config.get("sample_size")
    sides: list[Any] = list(cells) if isinstance(cells, list | tuple) else [cells, cells]
    if len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= 512 for side in sides):
        return ((sides[0] * factor, sides[1] * factor),)
    side = kind.kind.side_px or family.side_px
    return ((side, side),)
