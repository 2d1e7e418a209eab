"""The parameters of the layers that all networks consist of."""

from __future__ import annotations

Parameters = dict[str, tuple[int, ...]]
"""Shape of each parameter by its dotted name in the module."""


def linear(name: str, given: int, taken: int, *, has_bias: bool = True) -> Parameters:
    return {f"{name}.weight": (given, taken)} | ({f"{name}.bias": (given,)} if has_bias else {})


def convolution(name: str, given: int, taken: int, kernel: int = 3) -> Parameters:
    return {f"{name}.weight": (given, taken, kernel, kernel), f"{name}.bias": (given,)}


def norm(name: str, width: int) -> Parameters:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def resnet(name: str, given: int, taken: int, time: int | None = None) -> Parameters:
    """ResnetBlock2D of diffusers. time: width of the embedded time step; None in a VAE."""
    found = norm(f"{name}.norm1", taken) | convolution(f"{name}.conv1", given, taken)
    if time is not None:
        found |= linear(f"{name}.time_emb_proj", given, time)
    found |= norm(f"{name}.norm2", given) | convolution(f"{name}.conv2", given, given)
    return found if given == taken else found | convolution(f"{name}.conv_shortcut", given, taken, 1)
