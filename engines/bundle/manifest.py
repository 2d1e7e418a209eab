"""The bundle manifest, format 2: its names and value types. `manifest_reader` reads it, `interfaces` checks its graphs.

A family is data, and no family has code of its own here. Tokenizers and encoders have names, the inputs of a denoiser's graphs name the
tensors that they take, and the runtime feeds each input the tensor of that name:

    TOKENIZER.attention_mask, TOKENIZER.length     int64[rows, tokens], int64[rows]
    ENCODER.OUTPUT                                 an output of a text encoder's graph `encode`, rows first
    image_size                                     int64[2]: height and width in pixels

A denoiser's `condition` graph takes any of these, once per request; its `step` and `guided_step` take the outputs of `condition`, and any
of these too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORMAT = "costroute-bundle"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MANIFEST_SHA256 = "manifest.sha256"
DTYPES = frozenset({"float32", "float16", "bfloat16", "int64", "int32", "uint8", "int8", "bool"})
ROW_LENGTH, MEMORY_ROW_LENGTH = 9, 14
"""Numbers in a row of a step table, without and with a latent that is carried from row to row."""
GUIDANCE_KINDS = ("none", "classifier_free", "embedded")
"""none: the denoiser takes no scale. classifier_free: a scale above 1 runs `guided_step`, with two rows of text. embedded: `step` reads the
scale from its row."""
WEIGHT_PRECISIONS = ("float", "int8")
"""float: weights as they are stored. int8: those of matrix products are whole numbers with a scale per output channel; libraries may then
round what they are multiplied by to whole numbers too, so that its engines are not as close to the graph."""
NEGATIVE_RULES = ("empty_text", "zeros")
"""What replaces a missing negative prompt: the encoders' outputs for the empty text, or zeros."""
PROMPT_SYNTAXES = ("none", "a1111")
"""`none` reads prompts literally; `a1111` reads weights in brackets and BREAK, and splits long prompts (see `family.prompt_syntax`)."""
MOST_CHUNKS = 8
"""Chunks of one prompt: with 75 tokens each, 600 tokens."""
TEXT_TOKENS = "text_tokens"
"""Name of the axis of tokens in a denoiser's graphs that take the states of several chunks, one after the other."""
PRIOR = "prior"
"""Name of the metric of a table of qualities that was not measured, but says what is known of such models."""
IMAGE_SIZE = "image_size"
MOST_ELEMENTS = 1 << 28
"""Numbers in one tensor: as float32 it has 1 GiB."""
LONGEST_SIDE_PX = 4096
"""The longest side of an image."""
ROUTER_GRAPHS = {"router_encoder": "encode", "router_estimator": "estimate"}
"""Roles of the networks that a router may run, with the graph of each."""
BATCH_AXES = ("batch", "batch_size")
"""Names of axes that count images."""
LOOP_INPUTS = {"latent": 4, "denoised_before": 4, "noise": 4, "row": 1}
"""Inputs of every step graph besides the conditioning, with their ranks."""
CARRIED, NEXT_CARRIED = "carried", "next_carried"
"""Input and output of step graphs that carry one more latent."""
GUIDANCE_RESCALE = "guidance_rescale"
"""Input of guided step graphs that rescale their result: float32[1], the share of the way to the standard deviation of the prompt's."""
LOOP_OPTIONS = (CARRIED, GUIDANCE_RESCALE)
"""Inputs that step graphs may take besides `LOOP_INPUTS` and the conditioning."""
GUIDANCE_DEFAULTS: Mapping[str, float | None] = {
    "guidance_start": 0.0, "guidance_end": 1.0, "guidance_scale_last": None, "guidance_rescale": 0.0,
}  # fmt: skip
"""Settings that a candidate in a manifest may leave out."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph."""

    dtype: str
    shape: tuple[int | str, ...]
    """Axis lengths; a name is a length that may vary."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Inputs and outputs of one ONNX file."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """The expected digest and size of a file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One network: graphs that share weight files."""

    name: str
    role: str
    """text_encoder, denoiser, decoder, scorer, router_encoder, router_estimator, or a role this version does not use."""
    graphs: Mapping[str, str]
    """Path of the ONNX file for each use: encode, condition, step, guided_step, decode, score ..."""
    weights: tuple[str, ...] = ()
    """Paths of its safetensors files, in float16, bfloat16 or float32, and in int8 with scales."""
    weights_bytes: int | None = None
    """Bytes of its own tensors in these files, where they hold those of other components too; None if it uses whole files."""
    tokenizer: str | None = None
    """For a text encoder, the name of the tokenizer whose tokens it reads."""
    guidance: str = "none"
    """For a denoiser, one of `GUIDANCE_KINDS`."""
    weight_precision: str = "float"
    """One of `WEIGHT_PRECISIONS`."""

    def step_graph(self, guidance_scale: float) -> str:
        """The graph that a candidate with this guidance scale runs at each row."""
        return step_graph(self.guidance, guidance_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer: its file, and how it turns a prompt into tokens."""

    file: str
    max_length: int
    """Tokens that an encoder reads, padding included."""
    pad_id: int
    pad_side: str = "right"
    prefix: str = ""
    """Text before each prompt: the start of a template, rendered when the bundle was made."""
    suffix: str = ""
    """Text after each prompt."""
    drop: int = 0
    """Leading tokens (those of the prefix) that are cut from the encoders' outputs, from the mask and from the length."""
    lower_case: bool = False
    prompt_syntax: str = "none"
    """One of `PROMPT_SYNTAXES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Sizes of images and latents."""

    height: int
    width: int
    vae_scale_factor: int
    """Pixels per latent cell, along each axis."""
    latent_channels: int
    sizes: tuple[tuple[int, int], ...]
    """(height, width) pairs the denoisers were trained for."""
    any_size: bool = False
    """Whether requests may use other multiples of vae_scale_factor * patch_size, up to twice the default."""
    patch_size: int = 1
    """Latent cells, along each axis, that a denoiser reads as one token."""

    def tokens(self, height: int, width: int) -> int:
        """Latent tokens of an image of that size in pixels."""
        side = self.vae_scale_factor * self.patch_size
        return (height // side) * (width // side)


@dataclass(frozen=True, slots=True)
class PreviewSpec:
    """Linear map from a latent cell to RGB in 0..1: latent @ matrix + bias."""

    matrix: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


def step_graph(guidance: str, guidance_scale: float) -> str:
    """The graph that a denoiser with this kind of guidance runs at each row; guidance: one of `GUIDANCE_KINDS`."""
    return "guided_step" if guidance == "classifier_free" and guidance_scale > 1 else "step"


def step_graphs(guidance: str, candidate: Mapping[str, Any]) -> tuple[str, ...]:
    """The step graphs that a candidate can use: also `step` where its guidance starts late or ends early; candidate: as in the manifest."""
    main = step_graph(guidance, candidate.get("guidance_scale", 1.0))
    is_partial = any(candidate.get(name, GUIDANCE_DEFAULTS[name]) != GUIDANCE_DEFAULTS[name] for name in ("guidance_start", "guidance_end"))
    return (main, "step") if main == "guided_step" and is_partial else (main,)
