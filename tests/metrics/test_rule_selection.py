"""Rules of post-processing: by all sign flips, and how often useless ones pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medseg.metrics.rule_selection import rule_test


def test_by_all_flips() -> None:
    table = np.random.default_rng(0).normal(0.01, 0.02, (3, 7))
    largest = []
    for signs in itertools.product((1, -1), repeat=7):
        flipped = table * signs
        largest.append((flipped.mean(axis=1) / flipped.std(axis=1, ddof=1)).max())
    found = table.mean(axis=1) / table.std(axis=1, ddof=1)
    expected = [np.mean(np.array(largest) >= value - 1e-12) for value in found]
    assert rule_test(table).p_values == pytest.approx(expected, abs=1e-12)


def test_useless_rules() -> None:
    """Of nine useless rules on 12 or 20 subjects one passes in 5 % of trials, up to chance; alone, each would."""
    generator = np.random.default_rng(1)
    for subjects in (12, 20):
        tables = [generator.normal(0, 0.02, (9, subjects)) for _ in range(250)]
        passed = np.mean([len(rule_test(table, draws=999).accepted()) > 0 for table in tables])
        alone = np.mean([any(rule_test(row[None], draws=999).accepted().size for row in table) for table in tables])
        assert passed <= 0.05 + 0.042 < 0.2 < alone


def test_a_useful_rule_passes_first() -> None:
    table = np.random.default_rng(2).normal(0, 0.02, (4, 50))
    table[2] += 0.02
    table[3] = 0
    assert rule_test(table).accepted().tolist() == [2]
    assert rule_test(table).p_values[3] > 0.5  # a rule that changes nothing
    assert rule_test(table).p_values.tolist() == rule_test(table).p_values.tolist()


def test_too_few_subjects() -> None:
    found = rule_test(np.ones((2, 5)))
    assert np.isnan(found.p_values).all() and not found.accepted().size
