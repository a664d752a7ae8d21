"""Statistics against the evaluation set: scipy, statsmodels, explicit matrices and complete enumeration."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from full_set import FULL_SET

from medseg.metrics import median_interval
from medseg.metrics.agreement import bland_altman
from medseg.metrics.families import adjust_families
from medseg.metrics.folds import fold_test
from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.ranking import average_ranks, rank_stability
from medseg.metrics.seeds import crossed_mean
from medseg.metrics.shares import share
from medseg.metrics.single_score import cr2, score_interval
from medseg.metrics.subjects import subject_sums

FOLDER = FULL_SET / "evaluation"
PAIRED = ("independent_20", "two_each_10", "mixed_9", "six", "zeros_and_ties_12", "all_equal_8", "five", "one_missing")
pytestmark = pytest.mark.usefixtures("full_set")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "statistics.json").read_text())
    return content


def array(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=float)  # null is NaN


@pytest.mark.parametrize("name", PAIRED)
def test_paired(golden: dict[str, Any], name: str) -> None:
    case = golden["paired"][name]
    expected, first, second = case["expected"], array(case["first"]), array(case["second"])
    result = paired_difference(first, second, case["subject"])
    exact = expected["subjects"] <= 12
    close = {"abs": 1e-8 if exact else 0.005, "nan_ok": True}
    assert result.mean == pytest.approx(expected["mean_difference"], abs=1e-12)
    counts = (result.cases.higher, result.cases.lower, result.cases.equal)
    assert counts == (expected["better_cases"], expected["worse_cases"], expected["equal_cases"])
    assert result.subjects.higher == expected["better_subjects"]
    assert cr2(subject_sums(second - first, case["subject"])) == pytest.approx(
        (expected["cr2_se"], expected["cr2_df"]), abs=1e-8
    )
    few = expected["subjects"] < 6
    assert result.p_value == pytest.approx(np.nan if few else expected["signflip_p_exact"], **close)
    tolerance = expected.get("signflip_interval_tolerance", 1e-8)
    interval = array(expected["signflip_interval_95"])
    assert [result.low, result.high] == pytest.approx(interval, abs=tolerance, nan_ok=True)
    if "signflip_interval_90" in expected:
        interval = array(expected["signflip_interval_90"])
        assert [result.low_90, result.high_90] == pytest.approx(interval, abs=1e-8, nan_ok=True)


@pytest.mark.parametrize("name", PAIRED)
def test_single(golden: dict[str, Any], name: str) -> None:
    case = golden["paired"][name]
    expected = case["second_alone"]
    sums = subject_sums(array(case["second"]), case["subject"])
    result = score_interval(sums, limits=(0.0, 1.0))
    assert (result.mean, result.subjects) == (pytest.approx(expected["mean"], abs=1e-12), expected["subjects"])
    assert cr2(sums) == pytest.approx((expected["cr2_se"], expected["cr2_df"]), abs=1e-8)
    interval = array(expected.get("bootstrap_t_95", [None, None]))
    tolerance = expected.get("bootstrap_t_tolerance", 0)
    assert [result.low, result.high] == pytest.approx(interval, abs=tolerance, nan_ok=True)


def test_mean_over_labels(golden: dict[str, Any]) -> None:
    case = golden["labels"]
    first, second = array(case["first"]), array(case["second"])
    sums = subject_sums(second, case["subject"])
    assert sums.mean == pytest.approx(case["second_alone"]["mean"], abs=1e-12)
    assert sums.label_means == pytest.approx(case["second_alone"]["label_means"], abs=1e-12)
    assert sums.standard_error() == pytest.approx(case["second_alone"]["se_linearised"], abs=1e-8)
    result, expected = paired_difference(first, second, case["subject"]), case["difference"]
    assert result.mean == pytest.approx(expected["mean"], abs=1e-12)
    assert result.p_value == pytest.approx(expected["signflip_p_exact"], abs=1e-8)
    assert [result.low, result.high] == pytest.approx(expected["signflip_interval_95"], abs=1e-8)


def test_holm(golden: dict[str, Any]) -> None:
    for case in (golden["holm"], golden["holm"]["with_missing"]):
        rows = dict(enumerate(array(case["p"])))
        found = adjust_families(rows, dict.fromkeys(rows, "primary"))
        assert [row.adjusted for row in found.values()] == pytest.approx(
            array(case["adjusted"]), abs=1e-12, nan_ok=True
        )


def test_ranking(golden: dict[str, Any]) -> None:
    case = golden["ranking"]
    counts = np.load(FOLDER / "ranking_draws.npz")["counts"]
    result = rank_stability(array(case["scores"]), counts=counts.astype(float))
    assert result.ranks.tolist() == case["ranks"]
    assert result.shares == pytest.approx(array(case["share_of_rank"]), abs=1e-8)
    assert result.kendall_tau == pytest.approx(case["kendall_tau_mean"], abs=1e-8)
    found = average_ranks(array(case["scores"]))
    assert found.ranks == pytest.approx(case["average_ranks"], abs=1e-8)
    assert (found.chi_squared, found.p_value, found.critical_difference) == pytest.approx(
        (case["friedman_chi2"], case["friedman_p"], case["nemenyi_critical_difference"]), abs=1e-8
    )


def test_single_items(golden: dict[str, Any]) -> None:
    case = golden["seeds"]
    crossed = crossed_mean(array(case["scores"]))
    assert crossed.seed_means == pytest.approx(case["seed_means"], abs=1e-8)
    pairs = {
        "mean": crossed.mean,
        "sd_of_seed_means": crossed.seed_sd,
        "ms_case": crossed.ms_case,
        "ms_seed": crossed.ms_seed,
        "ms_residual": crossed.ms_residual,
        "se_crossed": crossed.standard_error,
        "df_crossed": crossed.degrees,
    }
    assert pairs == pytest.approx({key: case[key] for key in pairs}, abs=1e-8)
    case = golden["nadeau_bengio"]
    test = fold_test(case["fold_differences"], case["test_over_train"])
    assert (test.t, test.degrees, test.p_value) == pytest.approx((case["t"], case["df"], case["p"]), abs=1e-8)
    case = golden["bland_altman"]
    agreement = bland_altman(array(case["reference_ml"]), array(case["prediction_ml"]))
    assert (agreement.bias, agreement.sd) == pytest.approx((case["bias"], case["sd"]), abs=1e-8)
    assert [agreement.lower, agreement.upper] == pytest.approx(case["limits"], abs=1e-8)
    assert [agreement.bias_low, agreement.bias_high] == pytest.approx(case["bias_interval_95"], abs=1e-8)
    for case in golden["share"]:
        found = share(case["hits"], case["of"])
        assert [found.low, found.high] == pytest.approx(case["clopper_pearson_95"], abs=1e-8)
    case = golden["median"]
    median = median_interval(case["values"])
    assert [median.median, median.low, median.high] == [case["median"], *case["interval_95"]]
