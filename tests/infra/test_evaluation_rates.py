"""pass@k without bias, and intervals that hold what they promise."""

import itertools
import math
import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.session.evaluation_rates import pass_at_k, pass_rates, wilson


@given(st.data())
def test_pass_at_k_is_the_share_of_choices_of_k_samples_that_hold_a_success(data):
    """Counted over all of them."""
    samples = data.draw(st.lists(st.booleans(), min_size=1, max_size=9))
    k = data.draw(st.integers(1, len(samples)))
    expected = mean(any(chosen) for chosen in itertools.combinations(samples, k))
    assert expected == pytest.approx(pass_at_k(len(samples), sum(samples), k), abs=1e-12)


def test_pass_at_k_of_many_samples_is_that_of_the_binomials():
    """Where C(n, k) has 299 digits: in whole numbers, and without an overflow."""
    n, c, k = 1000, 3, 500
    expected = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert expected == pytest.approx(pass_at_k(n, c, k), rel=1e-12)


@given(st.integers(1, 50), st.data())
def test_pass_at_k_has_no_bias(n, data):
    """Its mean over the binomial distribution of successes is 1 - (1 - p)^k."""
    k, p = data.draw(st.integers(1, n)), data.draw(st.floats(0, 1))
    expected = 1 - (1 - p) ** k
    found = sum(
        math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1)
    )
    assert expected == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), (0, 0, 1)])
def test_what_cannot_be_estimated_is_an_error(n, c, k):
    """More successes than samples, or more tries than samples."""
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("share", "n", "expected"),
    [
        (
            0.5,
            10,
            (0.2366, 0.7634),
        ),  # Newcombe 1998, Statistics in Medicine 17, table I has the next
        (81 / 263, 263, (0.2553, 0.3662)),
        (15 / 148, 148, (0.0624, 0.1605)),
        (0 / 20, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
        (1.0, 20, (1 - 0.1611, 1.0)),
        (0.0, 0, (0.0, 1.0)),
    ],
)
def test_wilsons_interval_is_the_published_one(share, n, expected):
    """Four of Newcombe's examples, and the ends."""
    assert expected == pytest.approx(wilson(share, n), abs=5e-5)


@pytest.mark.parametrize("k", [1, 4])
def test_the_interval_covers_the_truth_nineteen_times_in_twenty(k):
    """40 tasks of mixed difficulty with 8 samples each, 600 times over."""
    draw = random.Random(7)
    truth = mean(1 - (1 - p) ** k for p in (0.02, 0.2, 0.6, 0.95))
    held = 0
    for _ in range(600):
        chances = [draw.choice((0.02, 0.2, 0.6, 0.95)) for _ in range(40)]
        rate = pass_rates([[draw.random() < p for _ in range(8)] for p in chances])[k]
        held += rate.low <= truth <= rate.high
    assert held / 600 >= 0.94


def test_rates_are_means_over_tasks_for_every_k_that_all_have_samples_for():
    """A task with more samples counts no more than another; one without any says nothing."""
    rates = pass_rates([[True, False, False, False], [True, True], []])
    assert [1, 2] == list(rates)
    assert (0.25 + 1.0) / 2 == rates[1].value
    assert (0.5 + 1.0) / 2 == pytest.approx(rates[2].value)
    assert wilson(0.625, 2) == (rates[1].low, rates[1].high)
    assert {} == pass_rates([]) == pass_rates([[]])
