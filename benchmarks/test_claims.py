"""Every claim of the report, held against all seeds of the session."""

import pytest


def test_claim(judged, bounds, claim):
    outcome = judged(claim)
    check = bounds.check_claim(outcome)
    if check is None:
        pytest.skip(f"not judged: no bounds for {outcome.data}; the runs' verdict is {outcome.verdict}")
    assert check.met, str(check)
    assert not bounds.overturns(outcome), f"{claim.sentence}: contradicted by {outcome.difference}"
