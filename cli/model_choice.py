"""The options of `export`: which model, and which candidates of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli.number import Number, WholeNumber

if TYPE_CHECKING:
    from costroute_rt.cli.progress import ExportLine
    from costroute_rt.export.bundle.additions import Additions
    from costroute_rt.export.bundle.options import ExportOptions
    from costroute_rt.export.checkpoint.source.network import Source

KINDS = ("base", "turbo", "lcm", "lightning", "hyper", "dmd2")
_MOST_STEPS = 1000


class StepList(click.ParamType):  # type: ignore[type-arg]
    """Numbers of steps, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        kind = WholeNumber(1, _MOST_STEPS)
        return value if isinstance(value, tuple) else tuple(kind.convert(part, param, ctx) for part in str(value).split(","))


class ShareList(click.ParamType):  # type: ignore[type-arg]
    """Shares of the steps, separated by commas."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        kind = Number(min=0, max=1, min_open=True)
        return value if isinstance(value, tuple) else tuple(kind.convert(part, param, ctx) for part in str(value).split(","))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model and what is added to it."""

    source: str
    loras: tuple[str, ...]
    embeddings: tuple[str, ...]
    vae: str | None
    tiny_decoder: str | None
    prediction: str | None
    variant: str | None
    revision: str | None
    offline: bool
    allow_pickle: bool

    def open(self, line: ExportLine) -> tuple[Source, Additions]:
        """Find and check everything, without loading weights. line: shows downloads."""
        from costroute_rt.export.bundle.opening import open_additions, open_model

        source = open_model(
            self.source,
            vae=self.vae,
            tiny_decoder=self.tiny_decoder,
            prediction_type=self.prediction,
            variant=self.variant,
            revision=self.revision,
            offline=self.offline,
            allow_pickle=self.allow_pickle,
            progress=line.show_download,
        )
        return source, open_additions(source, self.loras, self.embeddings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateChoice:
    """The candidates, and how the bundle is written."""

    copies: bool
    force: bool
    sizes: tuple[str, ...]
    any_size: bool
    steps: tuple[int, ...] | None
    kind: str | None
    schedulers: tuple[str, ...]
    clip_skip: int
    int8: bool
    guidance_ends: tuple[float, ...] | None = None
    guidance_rescale: float | None = None

    def options(self) -> ExportOptions:
        """The same, checked."""
        from costroute_rt.export.bundle.options import ExportOptions, parse_size

        sizes = tuple(parse_size(size) for size in self.sizes)
        return ExportOptions(
            copies=self.copies,
            overwrite=self.force,
            sizes=sizes,
            any_size=self.any_size,
            steps=self.steps or (),
            kind=self.kind,
            schedulers=self.schedulers,
            clip_skip=self.clip_skip,
            int8=self.int8,
            guidance_ends=self.guidance_ends or (),
            guidance_rescale=self.guidance_rescale,
        )


Command = Callable[..., Any]


def model_options() -> tuple[Callable[[Command], Command], ...]:
    """The options of `ModelChoice`, the last of the help first."""
    return (
        click.option("--allow-pickle", is_flag=True, help="Also read single files in torch's format (.ckpt, .pt); no code in them runs."),
        click.option("--offline", is_flag=True, help="Take models of the hub from the cache only."),
        click.option("--revision", metavar="REV", help="Branch, tag or commit of a model on the hub.  [default: main]"),
        click.option("--variant", metavar="NAME", help="Variant of the weight files to prefer, such as fp16."),
        click.option(
            "--prediction", type=click.Choice(["epsilon", "v_prediction"]), help="What the denoiser predicts, where the files do not tell."
        ),
        click.option("--tiny-decoder", metavar="FILE", help="Add candidates with this small decoder (AutoencoderTiny, TAESD)."),
        click.option("--vae", metavar="FILE", help="Use this VAE instead of the model's own."),
        click.option("--embedding", "embeddings", multiple=True, metavar="[WORD=]FILE", help="Add a textual inversion; may be repeated."),
        click.option("--lora", "loras", multiple=True, metavar="FILE[:SCALE]", help="Fuse a LoRA into the weights; may be repeated."),
        click.argument("source", type=click.Path()),
    )


def candidate_options() -> tuple[Callable[[Command], Command], ...]:
    """The options of `CandidateChoice`, the last of the help first."""
    return (
        click.option(
            "--guidance-rescale",
            type=Number(min=0, max=1),
            metavar="SHARE",
            help="Bring guided outputs so far, 0 to 1, to the deviation of the prompt's.  [default: 0.7 with zero terminal SNR, else 0]",
        ),
        click.option(
            "--guidance-end",
            "guidance_ends",
            type=ShareList(),
            metavar="SHARE,...",
            help="Shares of the steps after which guidance ends, a candidate for each; later steps cost half.  [default: 1]",
        ),
        click.option(
            "--clip-skip",
            type=WholeNumber(0, 12),
            default=0,
            show_default=True,
            metavar="N",
            help="Last layers of the text encoders to leave out; 1 is what AUTOMATIC1111 calls clip skip 2.",
        ),
        click.option(
            "--scheduler",
            "schedulers",
            multiple=True,
            metavar="NAME",
            help="Scheduler of the candidates, such as 'DPM++ 2M Karras'; may be repeated.  [default: by the kind of the model]",
        ),
        click.option(
            "--int8",
            is_flag=True,
            help="Add candidates with int8 weights, unless their images differ too much: a quarter of the memory for matrix products.",
        ),
        click.option("--kind", type=click.Choice(KINDS), help="How the model was distilled, if at all.  [default: by its name and files]"),
        click.option("--steps", type=StepList(), metavar="N,N,...", help="Steps of the candidates.  [default: by the kind of the model]"),
        click.option("--any-size", is_flag=True, help="Also allow other sizes, up to twice the usual one; the engines are slower."),
        click.option(
            "--size", "sizes", multiple=True, metavar="HEIGHTxWIDTH", help="Image size; may be repeated.  [default: the model's own]"
        ),
        click.option("--force", is_flag=True, help="Replace an existing bundle."),
        click.option("--copy", "copies", is_flag=True, help="Copy the weights, so that the bundle does not depend on the model's files."),
    )
