"""Model families: what each is made of, and the candidates that it starts with."""

from __future__ import annotations

from costroute_rt.error import ConfigError
from costroute_rt.export.families.sd1 import SD1
from costroute_rt.export.families.sd2 import SD2
from costroute_rt.export.families.sdxl import SDXL
from costroute_rt.export.families.spec import FamilySpec

FAMILIES = {spec.name: spec for spec in (SD1, SD2, SDXL)}


def find_family(name: str) -> FamilySpec:
    """The family called `name`; raises ConfigError that lists the known ones."""
    if name not in FAMILIES:
        raise ConfigError("family", name, f"one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
