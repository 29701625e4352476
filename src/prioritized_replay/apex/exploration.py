"""How much each actor explores: the one formula of Ape-X for it."""

_BASE, _EXPONENT = 0.4, 7.0


def epsilons(actors: int) -> list[float]:
    """Return the chance of a random action of each actor, which it keeps.

    ``0.4 ** (1 + 7 i / (N - 1))`` for actor i of N (Horgan et al. 2018, section 4): the first
    actor explores most, the last one hardly at all. A single actor has 0.4.

    Parameters
    ----------
    actors : int
        N, at least 1.

    Examples
    --------
    >>> [round(epsilon, 5) for epsilon in epsilons(3)]
    [0.4, 0.01619, 0.00066]
    >>> epsilons(1)
    [0.4]
    """
    if actors < 1:
        raise ValueError(f"actors must be >= 1, got {actors}")
    last = max(1, actors - 1)
    return [_BASE ** (1.0 + _EXPONENT * number / last) for number in range(actors)]
