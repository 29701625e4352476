import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference_rank import mass_of_ranks

from prioritized_replay.sampling.power_law import PowerLaw

ALPHAS = [
    0.0,
    1e-12,
    0.3,
    0.7,
    0.999,
    1.0 - 1e-9,
    1.0,
    1.0 + 1e-12,
    1.05,
    1.5,
    2.0,
    5.0,
    40.0,
    500.0,
]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.slow
def test_total_agrees_with_the_direct_sum(alpha):
    law = PowerLaw(alpha)
    masses = np.arange(1, 1_000_001, dtype=np.float64) ** -alpha
    for rows in [1, 2, 3, 1023, 1024, 1025, 1026, 5_000, 99_999, 1_000_000]:
        assert law.total(rows) == pytest.approx(math.fsum(masses[:rows]), rel=3e-15, abs=0)
    assert law.total(0) == 0.0


def test_total_of_very_many_rows():
    assert PowerLaw(1.0).total(10**9) == pytest.approx(
        math.log(1e9) + np.euler_gamma + 0.5e-9, rel=4e-15
    )
    assert PowerLaw(0.0).total(10**9) == 10**9
    assert PowerLaw(2.0).total(10**9) == pytest.approx(math.pi**2 / 6 - 1e-9, rel=4e-15)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0 - 1e-9, 1.0, 1.05, 1.5])
@pytest.mark.slow
def test_rank_inverts_total_exactly(alpha):
    law = PowerLaw(alpha)
    rows = 10**7
    ranks = [
        *range(1, 40),
        *range(1000, 1050),
        *np.geomspace(1100, rows - 1, 300).astype(int).tolist(),
    ]
    for rank in ranks:
        mass = law.total(rank)
        assert law.rank(mass, rows) == rank + 1
        assert law.rank(math.nextafter(mass, 0.0), rows) == rank
        assert law.rank((mass + law.total(rank - 1)) / 2, rows) == rank
    assert law.rank(0.0, rows) == 1
    assert law.rank(law.total(rows), rows) == rows
    assert law.rank(math.nextafter(law.total(rows), math.inf), rows) == rows


@given(
    alpha=st.floats(0.0, 30.0) | st.sampled_from(ALPHAS),
    rows=st.integers(1, 2_000) | st.integers(1, 10**9),
    uniform=st.floats(0.0, 1.0, exclude_max=True) | st.just(math.nextafter(1.0, 0.0)),
)
def test_rank_is_where_the_total_passes_the_mass(alpha, rows, uniform):
    law = PowerLaw(alpha)
    mass = uniform * law.total(rows)
    rank = law.rank(mass, rows)
    assert 1 <= rank <= rows
    assert law.total(rank - 1) <= mass
    assert mass < law.total(rank) or rank == rows


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 1.3, 8.0])
def test_rank_is_monotone(alpha):
    law = PowerLaw(alpha)
    masses = np.sort(np.random.default_rng(1).random(4_000)) * law.total(10**6)
    ranks = [law.rank(mass, 10**6) for mass in masses]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0 - 1e-9, 1.0, 1.3, 3.0])
@pytest.mark.parametrize(
    ("first", "last"),
    [
        *[(1, 1), (1, 2), (1, 16), (1, 17), (1, 1024), (1, 30_000), (900, 1000)],
        *[(1000, 1030), (1024, 1025), (1025, 1025), (1025, 1041)],
        *[(20_000, 20_001), (29_000, 30_000), (30_000, 30_000)],
    ],
)
@pytest.mark.slow
def test_probability_of_a_tie_group_has_no_cancellation(alpha, first, last):
    law = PowerLaw(alpha)
    rows = 30_000
    exact = mass_of_ranks(first, last, alpha) / (last - first + 1) / mass_of_ranks(1, rows, alpha)
    assert law.probability(first, last, rows) == pytest.approx(exact, rel=1e-12, abs=0)


def test_small_groups_keep_full_precision():
    law = PowerLaw(0.7)
    rows = 10**7
    groups = [(900, 900), (1000, 1012), (rows - 1, rows), (rows - 40, rows), (rows, rows)]
    for first, last in groups:
        exact = mass_of_ranks(first, last, 0.7) / (last - first + 1) / law.total(rows)
        assert law.probability(first, last, rows) == pytest.approx(exact, rel=1e-14, abs=0)


@pytest.mark.parametrize("alpha", [60.0, 500.0, 1e6, 1e200])
def test_probability_is_positive_even_where_the_mass_underflows(alpha):
    law = PowerLaw(alpha)
    for first, last in [(1, 1), (2, 2), (900, 950), (10**6, 10**6), (5000, 10**6), (10, 10**6)]:
        assert 0.0 < law.probability(first, last, 10**6) <= 1.0
    assert law.rank(0.5, 10**6) == 1
    assert law.total(10**6) == pytest.approx(1.0)


def test_alpha_out_of_range_is_refused():
    for alpha in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"alpha must be finite and >= 0, got {alpha}"):
            PowerLaw(alpha)
