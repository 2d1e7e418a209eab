"""The engines that encode initial images, which are built only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import Size
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.family.calls import image_encoder_names


def find_image_encoders(bundle: Bundle, sizes: frozenset[Size], is_ready: Callable[[Sequence[str]], bool]) -> frozenset[str]:
    """Those that are built and measured: the usual ones, and those for single sizes."""
    usual = image_encoder_names(bundle)
    names = (*usual, *(name for size in sizes for name in with_size(bundle, usual, size)))
    return frozenset(name for name in names if is_ready([name]))


def check_image_encoders(bundles: Iterable[Bundle], ready: Mapping[str, frozenset[str]], setup: Mapping[str, str]) -> None:
    """Raises EngineError if a bundle that can encode images has no engine ready, ConfigError if no bundle can.

    ready: engines by bundle. setup: as the error carries it.
    """
    usual = {bundle.name: (bundle, names) for bundle in bundles if (names := image_encoder_names(bundle))}
    if not usual:
        raise ConfigError("init_images", True, "False: there is no graph that encodes images")
    for name, (bundle, names) in usual.items():
        if not ready[name]:
            raise missing_image_encoder(names[0]).located(setup=setup, bundle=bundle.root)


def missing_image_encoder(name: str) -> EngineError:
    """The error for an initial image without the engine that encodes it."""
    return EngineError("no engine encodes initial images", reason=Reason.IMAGES_MISSING, engine=name)
