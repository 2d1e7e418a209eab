"""Step tables: a scheduler compiled to numbers, one row per denoiser call.

    m      = guided denoiser output at (input_scale * x, timestep)
    D      = p * x + q * m
    x_next = a * x + b * D + c * D_prev + e * y + s * noise
    y_next = f * x + g * D + h * D_prev + k * y

D is the predicted clean latent in every table built here (in heun's too), so it can be previewed or decoded early between any two rows.
A new table has c = 0 in row 0, because there is no D_prev yet. The carried latent y, 0 before row 0, serves solvers that need more memory
(UniPC); in all other tables its columns are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError

FloatArray = npt.NDArray[np.float64]

COLUMNS = ("input_scale", "timestep", "guidance", "p", "q", "a", "b", "c", "s")
"""Columns of a row, in the order in which step graphs take them."""
MEMORY = ("e", "f", "g", "h", "k")
"""Columns that follow in the row of a graph that carries one more latent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Descent:
    """The steps of one run from noise to image, before a solver turns them into rows; its arrays are read-only."""

    timestep: FloatArray
    """float64[steps], 0 to the number of training timesteps; the denoiser's input."""
    entry: FloatArray
    """float64[steps]; noise level at which each step starts, in the scheduler's own terms (see `solver`)."""
    exit: FloatArray
    """float64[steps]; noise level at which each step aims; the run ends at the last."""
    initial_noise_scale: float = 1.0
    """A run starts from this times standard normal noise (diffusers' init_noise_sigma)."""
    before: tuple[float, ...] = ()
    """In a re-planned run, the noise levels at which the two rows before these started, oldest first."""

    def __post_init__(self) -> None:
        if len(self.timestep) < 1:
            raise ConfigError("timestep", self.timestep, "one row or more")
        for name in ("timestep", "entry", "exit"):
            object.__setattr__(self, name, _column(name, getattr(self, name), len(self.timestep)))
        if not 0 < self.initial_noise_scale < float("inf"):
            raise ConfigError("initial_noise_scale", self.initial_noise_scale, "a finite number above 0")

    @classmethod
    def through(cls, timestep: FloatArray, levels: FloatArray, initial_noise_scale: float = 1.0) -> Descent:
        """Steps that each end where the next one starts; levels: float64[steps + 1]."""
        if len(levels) != len(timestep) + 1:
            raise ConfigError("levels", levels.shape, f"an array of shape {(len(timestep) + 1,)}")
        return cls(timestep=timestep, entry=levels[:-1], exit=levels[1:], initial_noise_scale=initial_noise_scale)

    def __len__(self) -> int:
        return len(self.timestep)

    def tail(self, row: int) -> Descent:
        """The steps from `row` on."""
        return replace(self, timestep=self.timestep[row:], entry=self.entry[row:], exit=self.exit[row:], before=self.before_row(row))

    def before_row(self, row: int) -> tuple[float, ...]:
        """The value of `before` for a run that continues at `row`."""
        return (*self.before, *self.entry[:row].tolist())[-2:]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTable:
    """The rows of one run; a column may be passed as one number for all rows, and becomes a read-only array."""

    descent: Descent
    """Timesteps and noise levels, one step for each row."""
    input_scale: FloatArray | float = 1.0
    """float64[rows]; the denoiser sees input_scale * x."""
    guidance: FloatArray | float = 1.0
    """float64[rows]; guidance scale of each row, so that guidance can stop or fade; 1 if the denoiser takes no guidance."""
    p: FloatArray | float
    q: FloatArray | float
    a: FloatArray | float
    b: FloatArray | float
    c: FloatArray | float = 0.0
    s: FloatArray | float = 0.0
    e: FloatArray | float = 0.0
    f: FloatArray | float = 0.0
    g: FloatArray | float = 0.0
    h: FloatArray | float = 0.0
    k: FloatArray | float = 0.0

    def __post_init__(self) -> None:
        for name in (*COLUMNS, *MEMORY):
            if name != "timestep":
                object.__setattr__(self, name, _column(name, getattr(self, name), len(self)))

    @property
    def timestep(self) -> FloatArray:
        """float64[rows]; the denoiser's input."""
        return self.descent.timestep

    @property
    def noise_levels(self) -> FloatArray:
        """float64[rows + 1]; the noise in x at each row's entry and after the last row, in the scheduler's own terms."""
        return np.append(self.descent.entry, self.descent.exit[-1])

    @property
    def initial_noise_scale(self) -> float:
        """A run starts from this times standard normal noise."""
        return self.descent.initial_noise_scale

    @property
    def has_memory(self) -> bool:
        """Whether a row uses the carried latent y."""
        return any(np.any(getattr(self, name)) for name in MEMORY)

    def __len__(self) -> int:
        return len(self.descent)

    def adds_noise(self, row: int) -> bool:
        """Whether a row uses new noise."""
        return bool(np.asarray(self.s)[row])

    def rows(self, *, memory: bool = False) -> FloatArray:
        """float64[rows, 9] in the order of `COLUMNS`; with `memory` float64[rows, 14], `MEMORY` after them."""
        names = (*COLUMNS, *MEMORY) if memory else COLUMNS
        return np.stack([getattr(self, name) for name in names], axis=1)

    def tail(self, row: int) -> StepTable:
        """The rows from `row` on, unchanged; a first row with c or e other than 0 needs the D or y of the row before it."""
        columns = {name: getattr(self, name)[row:] for name in (*COLUMNS, *MEMORY) if name != "timestep"}
        return StepTable(descent=self.descent.tail(row), **columns)

    def with_guidance(self, scale: FloatArray | float) -> StepTable:
        """The same rows with another guidance scale, one for all or float64[rows]."""
        return replace(self, guidance=scale)


def advance(
    table: StepTable,
    i: int,
    x: FloatArray,
    m: FloatArray,
    d_prev: FloatArray | None = None,
    noise: FloatArray | None = None,
    y: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute one row in NumPy, as a reference for the compiled step graphs; returns (x_next, D, y_next).

    x, m, d_prev, noise, y: float64[...], all of one shape; m is the guided denoiser's output at (input_scale * x, timestep).
    Raises ConfigError if row i needs a d_prev, noise or y that was not given.
    """
    row = {name: float(getattr(table, name)[i]) for name in (*COLUMNS, *MEMORY)}
    d = row["p"] * x + row["q"] * m

    def weighted(name: str, letter: str, term: FloatArray | None) -> FloatArray | float:
        if row[letter] == 0:
            return 0.0
        if term is None:
            raise ConfigError(name, None, f"an array of shape {x.shape}, which row {i} of this table uses")
        return row[letter] * term

    x_next = row["a"] * x + row["b"] * d
    x_next = x_next + weighted("d_prev", "c", d_prev) + weighted("noise", "s", noise) + weighted("y", "e", y)
    y_next = row["f"] * x + row["g"] * d + weighted("d_prev", "h", d_prev) + weighted("y", "k", y)
    return x_next, d, y_next


def _column(name: str, values: FloatArray | float, rows: int) -> FloatArray:
    """A read-only copy as float64[rows]; raises ConfigError for another shape or a number that is not finite."""
    column = np.array(values, dtype=np.float64)
    column = np.full(rows, column) if column.ndim == 0 else column
    if column.shape != (rows,):
        raise ConfigError(name, column.shape, f"an array of shape {(rows,)}")
    if not np.isfinite(column).all():
        raise ConfigError(name, column, "finite numbers")
    column.setflags(write=False)
    return column
