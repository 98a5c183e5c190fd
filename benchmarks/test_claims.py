"""Every claim of the report, held against all seeds of the session: a pass means that it holds."""

import pytest

from cvhw4.homework.options import homework


@pytest.mark.study(homework)
def test_claim(judged, bounds, claim):
    outcome = judged(claim)
    check = bounds.check_claim(outcome)
    if check is None:
        pytest.skip(f"not judged: no bounds for {outcome.data}; the runs' verdict is {outcome.verdict}")
    holds = outcome.difference.mean > claim.margin
    assert check.met, str(check) if holds else f"{claim.sentence}: no longer holds; {check}"
    if not bounds.promises(outcome):
        pytest.skip(f"not promised by the calibration at {outcome.difference.n} seeds; {check}")
    assert holds
