"""What published figures, from one run each, can show of a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvhw4.statistics.intervals import two_sided_p
from cvhw4.study import Claim, Study


@dataclass(frozen=True)
class SingleRuns:
    """Accuracies of single runs, as a report publishes them, held against each other or against a margin.

    Attributes:
        difference: better minus worse; the accuracy itself where there is no worse one.
        low: lower end of its interval, for the choice of images alone.
        high: upper end.
        margin: what the difference is held against.
        p_value: two-sided, of difference == margin.
        error: standard error of the difference, towards the margin, for the choice of images alone; above 0 where none
            is wrong, too.
    """

    difference: float
    low: float
    high: float
    margin: float
    p_value: float
    error: float

    def p_with_seeds(self, sd: float, n: int, *, redrawn: bool = False) -> float:
        """The same for another seed as well: t test with the spread of one run's difference added to the error.

        Args:
            sd: of n seeds' differences, here; its n - 1 degrees of freedom become more as the images have a share in
                the error (Welch and Satterthwaite): without a spread infinitely many, as the images are then all of it.
            redrawn: each seed had its own images, so that theirs is a part of the spread, and the larger is the error.
        """
        if n < 2:
            return math.nan
        error = max(self.error, sd) if redrawn else math.hypot(self.error, sd)
        freedom = (n - 1) * (error / sd) ** 4 if sd > 0 else math.inf
        return two_sided_p((self.difference - self.margin) / error, freedom)


def binomial_comparison(better: float, worse: float | None, images: int, margin: float = 0.0) -> SingleRuns:
    """What single runs' accuracies on the same images say, from their binomial error alone.

    It knows nothing of the spread between seeds, which one run does not show, so it is the least that the error can
    be. On the other hand the images are the same: answers that are alike make the difference steadier than two
    independent accuracies, but how much steadier only the answers by image would tell (McNemar), and they are not
    published. Of a difference the interval is Newcombe's (1998, method 10), made of the Wilson intervals of both, and
    the test's error is scaled from the 95 % interval. For accuracies of whole images, not of pixels.

    Args:
        better: within 0..1.
        worse: within 0..1; None holds `better` against the margin, exactly: scipy's `binomtest` and its
            Clopper-Pearson interval, with round(better * images) successes.
        images: number of validation images, 1 or more.
        margin: for the difference; within 0..1 where there is no worse figure.
    """
    from scipy.stats import binomtest, norm

    def reach(share: float) -> tuple[float, float]:
        """From a share to the ends of its Wilson interval."""
        ends = binomtest(round(share * images), images).proportion_ci(0.95, method="wilson")
        return share - ends.low, ends.high - share

    below, above = reach(better)
    if worse is not None:
        down, up = reach(worse)
        below, above = math.hypot(below, up), math.hypot(above, down)
    difference = better - (worse or 0.0)
    error = float((below if difference > margin else above or below) / norm.ppf(0.975))
    if worse is None:
        test = binomtest(round(better * images), images, margin)
        low, high = test.proportion_ci(0.95, method="exact")
        return SingleRuns(difference, float(low), float(high), margin, float(test.pvalue), error)
    p_value = float(2 * norm.sf(abs(difference - margin) / error))
    return SingleRuns(difference, difference - below, difference + above, margin, p_value, error)


@dataclass(frozen=True)
class Stated:
    """What published figures, from one run each, say of a claim.

    Attributes:
        difference: as published, better minus worse (of figures of which the lowest is best worse minus better), or
            the figure itself where the claim has no worse row; NaN where nothing is published.
        images: the comparison by the binomial error of their validation images alone; None for figures that have none
            to go by (mIoU, whose spread over images is not published).
    """

    difference: float
    images: SingleRuns | None = None


def stated(claim: Claim, study: Study) -> Stated:
    """The claim by the published figures: an upper limit of what one run can show, since its seed adds to the error."""
    values = [study.published[row].figures.get(claim.metric, math.nan) for row in claim.rows if row in study.published]
    if len(values) != len(claim.rows) or len(values) > 2 or any(map(math.isnan, values)):
        return Stated(math.nan)
    better, worse = values[0], (values[1] if len(values) == 2 else None)
    difference = better if worse is None else worse - better if claim.metric in study.lowest else better - worse
    task = study.rows[claim.rows[0]].task
    if not (study.published_images and task.in_images and claim.metric in task.metrics):
        return Stated(difference)
    return Stated(difference, binomial_comparison(better, worse, study.published_images, claim.margin))
