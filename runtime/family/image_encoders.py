"""The engines that encode initial images, which are built only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from costroute_rt.engines.building.lookup import names_to_build
from costroute_rt.engines.building.progress import Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import Size
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.error import ConfigError
from costroute_rt.family.calls import image_encoder_names, missing_image_encoder

if TYPE_CHECKING:
    from costroute_rt.family.engine_source import EngineSource
    from costroute_rt.family.family import Family


def find_image_encoders(bundle: Bundle, sizes: frozenset[Size], is_ready: Callable[[Sequence[str]], bool]) -> frozenset[str]:
    """Those that are built and measured: the usual ones, and those for single sizes."""
    usual = image_encoder_names(bundle)
    names = (*usual, *(name for size in sizes for name in with_size(bundle, usual, size)))
    return frozenset(name for name in names if is_ready([name]))


def build_image_encoders(families: Mapping[str, Family], source: EngineSource, tracker: Tracker) -> None:
    """Build and measure the usual ones that are missing."""
    bundles = [family.bundle for family in families.values()]
    names = [name for bundle in bundles for name in names_to_build(bundle, image_encoder_names(bundle), source.setup)]
    source.build(names, tracker)


def check_image_encoders(families: Iterable[Family], setup: Mapping[str, str]) -> None:
    """Raises EngineError if a family that can encode images has no engine ready, ConfigError if none can.

    setup: as the error carries it.
    """
    usual = [(family, names) for family in families if (names := image_encoder_names(family.bundle))]
    if not usual:
        raise ConfigError("init_images", True, "False: there is no graph that encodes images")
    for family, names in usual:
        if not family.image_encoders:
            raise missing_image_encoder(names[0]).located(setup=setup, bundle=family.bundle.root)
