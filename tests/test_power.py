"""The power function of the kernels against NumPy's, which calls the C library."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numba import njit

from prioritized_replay.jit.power import SMALLEST, power

EXPONENTS = [-1.0, -0.7, -0.4, -1e-9, 0.0, 1e-300, 0.1, 0.5, 0.6, 0.7, 1.0]


@njit(error_model="numpy")
def powers(bases, exponent, out):
    for i in range(bases.size):
        out[i] = power(bases[i], exponent)


def raised(bases, exponent):
    out = np.empty(len(bases))
    powers(np.asarray(bases, np.float64), exponent, out)
    return out


def expected(bases, exponent):
    with np.errstate(under="ignore"):
        return np.maximum(np.power(np.asarray(bases, np.float64), exponent), SMALLEST)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.slow
def test_powers_of_all_sizes_are_right_to_the_last_digits(exponent):
    sizes = 10 ** np.random.default_rng(0).uniform(-300, 300, 20_000)
    largest = np.finfo(np.float64).max
    bases = np.concatenate([sizes, largest * np.array([1.0, 0.75, 2**-0.5, 0.7, 0.5])])

    np.testing.assert_allclose(
        raised(bases, exponent), expected(bases, exponent), rtol=4.5e-16, atol=0
    )


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_numbers_around_one_are_right_to_the_last_digits(exponent):
    """Where log2 passes 0, and where the halves of the mantissa meet."""
    near = [1 - 1e-16, 1.0, 1 + 3e-16, 0.5, 2.0, np.sqrt(0.5), np.nextafter(np.sqrt(0.5), 0), np.pi]
    bases = np.concatenate([near, np.random.default_rng(1).uniform(0.25, 4.0, 20_000)])

    np.testing.assert_allclose(
        raised(bases, exponent), expected(bases, exponent), rtol=4.5e-16, atol=0
    )


def test_numbers_below_the_normal_ones_are_taken():
    bases = [5e-324, 1e-320, 1e-310, np.nextafter(SMALLEST, 0.0), SMALLEST]

    np.testing.assert_allclose(raised(bases, 0.5), expected(bases, 0.5), rtol=4.5e-16, atol=0)


def test_no_power_is_below_the_smallest_normal_number():
    bases = [5e-324, 1e-310, SMALLEST, 1e-300, 1e-200]

    assert (raised(bases, 1.0)[:3] == SMALLEST).all()
    assert (raised(bases, 2.0) == SMALLEST).all()
    assert (raised([1e300, 1e308], -1.5) == SMALLEST).all()


def test_exact_powers_are_exact():
    bases = 10 ** np.random.default_rng(2).uniform(-300, 300, 1_000)

    assert (raised(bases, 0.0) == 1.0).all()
    assert (raised(np.ones(3), -0.37) == 1.0).all()
    assert (raised([4.0, 2.0**-300, 2.0**600], 0.5) == [2.0, 2.0**-150, 2.0**300]).all()


@given(
    base=st.floats(5e-324, np.finfo(np.float64).max),
    exponent=st.floats(-1.0, 1.0),
)
def test_any_power_is_right_and_the_same_in_plain_python(base, exponent):
    assume(math.log2(base) * exponent < 1023.9)  # no power may overflow
    found = raised([base], exponent)[0]

    np.testing.assert_allclose(found, expected([base], exponent)[0], rtol=6e-16, atol=0)
    plain = getattr(power, "py_func", power)
    assert plain(np.float64(base), exponent) == found


def test_the_place_in_an_array_does_not_matter():
    """Vectorised part and rest of a loop give the same bits."""
    bases = np.random.default_rng(3).exponential(size=67)

    whole = raised(bases, 0.6)

    assert whole.tolist() == [raised([base], 0.6)[0] for base in bases]
