"""Step tables: a scheduler compiled to numbers, one row per denoiser call.

    m      = guided denoiser output at (input_scale * x, timestep)
    D      = p * x + q * m
    x_next = a * x + b * D + c * D_prev + s * noise

D is the predicted clean latent in every table built here (heun too), so the latent a run would end at can be shown, or decoded
early, between any two rows. A fresh table has c = 0 in row 0, where there is no D_prev.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.manifest import ROW
from costroute_rt.error import ConfigError

FloatArray = npt.NDArray[np.float64]

COLUMNS = ROW
"""What a row holds, in the order the guided step takes it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTable:
    """The rows of one run; its arrays are read-only."""

    input_scale: FloatArray
    """float64[rows]; the denoiser sees input_scale * x."""
    timestep: FloatArray
    """float64[rows], 0 to the number of training timesteps; what the denoiser is told."""
    p: FloatArray
    q: FloatArray
    a: FloatArray
    b: FloatArray
    c: FloatArray
    s: FloatArray
    noise_levels: FloatArray
    """float64[rows + 1]; the noise in x at each row's entry and after the last row, in the scheduler's own terms (see `scheduler`)."""
    initial_noise_scale: float = 1.0
    """A run starts from this times standard normal noise (diffusers' init_noise_sigma)."""

    def __post_init__(self) -> None:
        rows = len(self.timestep)
        if rows < 1:
            raise ConfigError("timestep", self.timestep, "one row or more")
        for name in (*COLUMNS, "noise_levels"):
            column = np.array(getattr(self, name), dtype=np.float64)
            expected = (rows + 1,) if name == "noise_levels" else (rows,)
            if column.shape != expected:
                raise ConfigError(name, column.shape, f"an array of shape {expected}")
            if not np.isfinite(column).all():
                raise ConfigError(name, column, "finite numbers")
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        if not 0 < self.initial_noise_scale < float("inf"):
            raise ConfigError("initial_noise_scale", self.initial_noise_scale, "a finite number above 0")

    @classmethod
    def from_columns(
        cls,
        *,
        timestep: FloatArray,
        noise_levels: FloatArray,
        p: FloatArray | float,
        q: FloatArray | float,
        a: FloatArray | float,
        b: FloatArray | float,
        c: FloatArray | float = 0.0,
        s: FloatArray | float = 0.0,
        input_scale: FloatArray | float = 1.0,
        initial_noise_scale: float = 1.0,
    ) -> StepTable:
        """A table whose columns may be given as one number for all rows."""

        def spread(column: FloatArray | float) -> FloatArray:
            return column if isinstance(column, np.ndarray) else np.full(len(timestep), float(column))

        return cls(
            timestep=timestep,
            noise_levels=noise_levels,
            initial_noise_scale=initial_noise_scale,
            input_scale=spread(input_scale),
            p=spread(p),
            q=spread(q),
            a=spread(a),
            b=spread(b),
            c=spread(c),
            s=spread(s),
        )

    def __len__(self) -> int:
        return len(self.timestep)

    def row(self, i: int) -> FloatArray:
        """float64[8]: row i in the order of `COLUMNS`."""
        return np.array([getattr(self, name)[i] for name in COLUMNS])

    def tail(self, row: int) -> StepTable:
        """The rows from `row` on, unchanged; a first row with c other than 0 goes on using the D before it."""
        columns = {name: getattr(self, name)[row:] for name in (*COLUMNS, "noise_levels")}
        return StepTable(**columns, initial_noise_scale=self.initial_noise_scale)


def advance(
    table: StepTable, i: int, x: FloatArray, m: FloatArray, d_prev: FloatArray | None = None, noise: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """One row in NumPy: the reference that the compiled guided step is checked against.

    x, m, d_prev, noise: float64[...], one shape; m is the denoiser's output at (input_scale * x, timestep).
    Returns (x_next, D). Raises ConfigError where row i needs a d_prev or noise that was not given.
    """
    _, _, p, q, a, b, c, s = table.row(i)
    d = p * x + q * m
    x_next = a * x + b * d
    for name, weight, term in (("d_prev", c, d_prev), ("noise", s, noise)):
        if weight == 0:
            continue
        if term is None:
            raise ConfigError(name, None, f"an array of shape {x.shape}, which row {i} of this table uses")
        x_next = x_next + weight * term
    return x_next, d
