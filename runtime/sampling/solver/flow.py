"""Solvers for flow noise levels, from 0 to 1."""

from __future__ import annotations

from costroute_rt.sampling.step_table import Descent, StepTable


def flow_match_euler(descent: Descent, is_stochastic: bool = False) -> StepTable:
    """Euler steps along a rectified flow (Esser et al. 2024); flow noise levels.

    is_stochastic: go to the clean latent and back up with new noise, which some distilled models require.
    """
    ratio = descent.exit / descent.entry
    if is_stochastic:
        return StepTable(descent=descent, p=1.0, q=-descent.entry, a=0.0, b=1 - descent.exit, s=descent.exit)
    return StepTable(descent=descent, p=1.0, q=-descent.entry, a=ratio, b=1 - ratio)
