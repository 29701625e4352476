"""Compiled functions of the power law over ranks: masses, their sums, and the rank at a point."""

import math

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import words_as
from prioritized_replay.jit.power import SMALLEST, power
from prioritized_replay.sampling._draw_kernels import point

TABLE = 1024  # ranks whose sums of the power law are tabulated


# --- the power law over ranks ----------------------------------------------------------------


@inner
def box_cox(rank, mass, alpha):
    """Integral of t**-alpha from 1 to a rank whose mass is rank**-alpha."""
    power = 1.0 - alpha
    if abs(power) > 0.1:
        return (rank * mass - 1.0) / power
    if abs(power) > 1e-20:
        return math.expm1(power * math.log(rank)) / power
    return math.log(rank)


@inner
def smooth_sum(rank, mass, alpha):
    """H(rank) by Euler and Maclaurin, up to a constant that depends on alpha only."""
    return box_cox(rank, mass, alpha) + mass * (0.5 - alpha / (12.0 * rank))


@kernel
def fill_law(alpha, table):
    """Write H(0..TABLE), summed with compensation; return the constant for `smooth_sum`."""
    table[0] = 0.0
    total = 0.0
    excess = 0.0
    for rank in range(1, TABLE + 1):
        term = float(rank) ** -alpha - excess
        grown = total + term
        excess = (grown - total) - term
        total = grown
        table[rank] = total
    return total - smooth_sum(float(TABLE), float(TABLE) ** -alpha, alpha)


@kernel
def mass_up_to(rank, alpha, constant, table):
    """H(rank): the sum of r**-alpha over the ranks 1..rank."""
    if rank <= TABLE:
        return table[rank]
    real = float(rank)
    return constant + smooth_sum(real, real**-alpha, alpha)


@inner
def mass_between(first, last, alpha, table):
    """Sum of r**-alpha over the ranks first..last, without cancellation."""
    tabled = min(last, TABLE)
    total = 0.0
    if first <= tabled:
        total = table[tabled] - table[first - 1]
    if first <= tabled and (tabled - first < 16 or total < 1e-3 * table[tabled]):
        total = 0.0
        for rank in range(first, tabled + 1):
            total += float(rank) ** -alpha
    if last <= TABLE:
        return total
    low = float(max(first, TABLE + 1))
    low_mass = low**-alpha
    if first == last:
        return low_mass
    high = float(last)
    power = 1.0 - alpha
    stretch = math.log1p((high - low) / low)
    if abs(power) > 1e-20:
        stretch = math.expm1(power * stretch) / power
    high_mass = high**-alpha
    ends = 0.5 * (low_mass + high_mass) + alpha / 12.0 * (low_mass / low - high_mass / high)
    return total + low * low_mass * stretch + ends


@inner
def guess_rank(mass, alpha, constant):
    """Real number close to the rank where H passes `mass`: `smooth_sum` inverted, roughly."""
    power = 1.0 - alpha
    area = mass - constant
    scaled = power * area
    if scaled <= -1.0:  # beyond what the closed form can reach, at either end
        return np.inf if power < 0.0 else 0.0
    if abs(power) > 0.1:
        return (1.0 + scaled) ** (1.0 / power) - 0.5
    if abs(power) > 1e-20:
        return math.exp(min(math.log1p(scaled) / power, 700.0)) - 0.5
    return math.exp(min(area, 700.0)) - 0.5


@kernel
def rank_at(mass, rows, alpha, constant, table):
    """Smallest rank r in 1..rows with H(r) > mass, else rows."""
    return rank_and_mass(mass, rows, alpha, constant, table)[0]


@inner
def rank_and_mass(mass, rows, alpha, constant, table):
    """Find the rank, and its own mass r**-alpha which the search needs anyway."""
    real = math.floor(min(max(guess_rank(mass, alpha, constant), 0.0), rows - 1.0)) + 1.0
    return checked_rank(mass, real, real**-alpha, rows, alpha, constant, table)


@inner
def checked_rank(mass, real, own, rows, alpha, constant, table):
    """Return a guessed rank and its own mass if it is right, else the right ones."""
    rank = np.int64(real)
    high = table[rank] if rank <= TABLE else constant + smooth_sum(real, own, alpha)
    rounding = 1e-13 * high
    if rounding < high - mass < own - rounding:  # H(rank - 1) = high - own, up to rounding
        return rank, own
    rank = search_rank(mass, rank, rows, alpha, constant, table)
    return rank, float(rank) ** -alpha


@inner
def search_rank(mass, rank, rows, alpha, constant, table):
    """Smallest rank as above, from a first guess that is most often right or off by one."""
    low = np.int64(0)  # H(low) <= mass
    high = rows
    if mass < mass_up_to(rank, alpha, constant, table):
        if rank == 1 or mass_up_to(rank - 1, alpha, constant, table) <= mass:
            return rank
        high = rank - 1
    else:
        if rank >= rows or mass < mass_up_to(rank + 1, alpha, constant, table):
            return min(rank + 1, rows)
        low = rank + 1
    while high - low > 1:
        middle = (low + high) // 2
        if mass < mass_up_to(middle, alpha, constant, table):
            high = middle
        else:
            low = middle
    return high


@kernel
def member_probability(first, last, total, alpha, table):
    """Chance of one of the rows that share the ranks first..last; `total` is H of all rows."""
    mass = mass_between(first, last, alpha, table)
    return max(mass / (total * (last - first + 1)), SMALLEST)


@kernel
def spread(starts, stops, rows, alpha, constant, table, probabilities):
    """Write the chance of one row of each tie group of positions start .. stop - 1."""
    total = mass_up_to(rows, alpha, constant, table)
    for b in range(len(starts)):
        if b > 0 and starts[b] == starts[b - 1] and stops[b] == stops[b - 1]:
            probabilities[b] = probabilities[b - 1]
        else:
            probabilities[b] = member_probability(
                rows - stops[b] + 1, rows - starts[b], total, alpha, table
            )


@inner
def find_ranks(
    uniforms, stratified, rows, total, alpha, constant, table, ranks, probabilities
):  # fmt: skip
    """Write the rank at each point of [0, 1), and the probability of that rank.

    Powers are most of the work, so they are taken in loops of their own, which vectorise.
    """
    power_of_rank = 1.0 - alpha
    reals = words_as(ranks, np.float64)
    if abs(power_of_rank) > 0.1:
        for b in range(len(uniforms)):
            area = point(uniforms, b, stratified) * total - constant
            guess = power(max(1.0 + power_of_rank * area, SMALLEST), 1.0 / power_of_rank) - 0.5
            reals[b] = math.floor(min(max(guess, 0.0), rows - 1.0)) + 1.0
    else:
        for b in range(len(uniforms)):
            guess = guess_rank(point(uniforms, b, stratified) * total, alpha, constant)
            reals[b] = math.floor(min(max(guess, 0.0), rows - 1.0)) + 1.0
    for b in range(len(uniforms)):
        probabilities[b] = power(reals[b], -alpha)
    for b in range(len(uniforms)):
        target = point(uniforms, b, stratified) * total
        rank, own = checked_rank(target, reals[b], probabilities[b], rows, alpha, constant, table)
        ranks[b] = rank
        probabilities[b] = max(own / total, SMALLEST)
