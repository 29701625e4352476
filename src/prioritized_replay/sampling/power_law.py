"""The power law over ranks: mass(rank) = rank**-alpha. It knows no priorities and no slots."""

import math

import numpy as np

from prioritized_replay.sampling import _power_law_kernels as power_law_kernels


class PowerLaw:
    """Power law over the ranks 1..n: rank r has the mass ``r**-alpha``.

    The sums H(n) of the masses are tabulated to rank 1024 and continued by the Euler-Maclaurin
    formula (relative error about 2e-15), so that nothing here grows with n and a law with another
    alpha is made in constant time.

    Parameters
    ----------
    alpha
        Exponent >= 0: 0 makes all ranks equally likely, 1 is Zipf's law.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite.

    Notes
    -----
    The rank-based distribution of Schaul et al. (2015), section 3.3: P(i) = p_i**alpha / sum_k
    p_k**alpha with p_i = 1 / rank(i).

    Examples
    --------
    >>> law = PowerLaw(1.0)
    >>> round(law.total(4), 12)  # 1 + 1/2 + 1/3 + 1/4
    2.083333333333
    >>> law.rank(1.2, 4)  # H(1) = 1 <= 1.2 < H(2) = 1.5
    2
    >>> round(law.probability(2, 3, 4), 12)  # ranks 2 and 3 share (1/2 + 1/3) / H(4)
    0.2
    """

    __slots__ = ("alpha", "constant", "table")

    def __init__(self, alpha: float) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be finite and >= 0, got {alpha}")
        self.alpha = float(alpha)
        self.table = np.empty(power_law_kernels.TABLE + 1)
        self.constant: float = power_law_kernels.fill_law(self.alpha, self.table)

    def __repr__(self) -> str:
        return f"PowerLaw({self.alpha})"

    def total(self, rows: int) -> float:
        """Mass of all ranks 1..rows, H(rows); H(0) = 0."""
        return float(power_law_kernels.mass_up_to(int(rows), self.alpha, self.constant, self.table))

    def rank(self, mass: float, rows: int) -> int:
        """Smallest rank r of 1..rows with H(r) > mass, or `rows` where there is none."""
        found = power_law_kernels.rank_at(
            float(mass), int(rows), self.alpha, self.constant, self.table
        )
        return int(found)

    def probability(self, first: int, last: int, rows: int) -> float:
        """Chance, in one draw among `rows` rows, of one row of the tie group of ranks first..last.

        Rows of equal priority share the mass of their ranks equally. Never 0: the smallest normal
        float64 stands in for what is less.
        """
        total = self.total(rows)
        return float(
            power_law_kernels.member_probability(
                int(first), int(last), total, self.alpha, self.table
            )
        )
