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
    told = f"{claim.sentence}: {'is not what it was' if holds else 'no longer holds'}; {check}"
    assert check.met, told
    if not bounds.promises(outcome):
        pytest.skip(f"not promised by the calibration at {outcome.difference.n} seeds; {check}")
    assert holds, told
