"""The rule that turns an interval into a verdict on a claim."""

from __future__ import annotations

from typing import Literal, get_args

from lowdata_cpt.analysis import stats
from lowdata_cpt.analysis.claims_file import SIGN, Statement

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "budget too small", "not run", "yes", "no", "open"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ANSWERS: dict[Verdict, Verdict] = {
    "reproduced": "yes",
    "not reproduced": "no",
    "inconclusive": "open",
    "budget too small": "open",
    "not run": "not run",
}
RULE = """\
Every effect is a gain method − reference on the test split at the end of the runs (against a trained reference: at the
largest number of images that both have seen), paired by seed and by test image, in points (% for RMSE and AbsRel),
positive = better. The measured value is the mean over the claim's domains of the mean over seeds (a seed's sizes n
averaged first). Its 95 % interval covers seeds and test images (pigeonhole bootstrap) where the outcomes of the test
images were kept, else seeds.

Left out, and named in the reason: a domain whose base is not clearly better than random weights in that metric; a cell
whose method, or control, did not act: its log does not leave the level of a predictor that ignores the image.

Let d be the direction (+1 better, −1 worse), and *need* the effect the claim asks for: max(0, d · reported value −
tolerance) where a tolerance is given, else 0 (direction only: the reported value comes from other data or is unknown).
All in the claimed direction:

- **not run**: no cell of the claim is in the table, or none of one of its domains; the reason says what is missing. (Of
  several sizes those present are used, and the reason names the others.)
- **budget too small**: in no cell of the claim did the method act; the reason says how much of its source's run it had.
- **inconclusive**: a domain has one seed; or the interval touches zero; or anything else.
- **reproduced**: the whole interval is on the claimed side of zero and the measured value reaches *need*.
- **not reproduced**: the whole interval is on the other side of zero, or on the claimed side but below *need*.

For the direction `not_worse` a loss within the tolerance is none: reproduced if the whole interval lies above
−tolerance, not reproduced if it lies below, else inconclusive. A larger effect than reported is no failure.

Beside the verdict: an effect of the reported size is *excluded* if the whole interval lies below it, *exceeded* if
above, else *possible*. This study's own questions, which no paper answers, are answered by the same rule: *yes*, *no*,
or *open*. Intervals are not corrected for the number of claims: one in twenty without any effect leaves out zero.
"""


def judge(claim: Statement, interval: stats.Interval) -> Verdict:
    """Apply `RULE` to a measured interval (method − reference, positive = better)."""
    if not interval.known or interval.covers == "test images":
        return "inconclusive"
    if claim.direction == "not_worse":
        allowed = -(claim.tolerance or 0.0)
        if interval.low > allowed:
            return "reproduced"
        return "not reproduced" if interval.high < allowed else "inconclusive"
    if not interval.excludes_zero:
        return "inconclusive"
    sign = SIGN[claim.direction]
    low, high = sorted((sign * interval.low, sign * interval.high))
    need = 0.0
    if claim.paper_value is not None and claim.tolerance is not None:
        need = max(0.0, sign * claim.paper_value - claim.tolerance)
    if low > 0 and sign * interval.estimate >= need:
        return "reproduced"
    return "not reproduced" if high < need else "inconclusive"


def paper_size(claim: Statement, interval: stats.Interval) -> Literal["excluded", "possible", "exceeded"] | None:
    """Say whether an effect of the reported size lies above the interval, in it, or below it; None without either."""
    if claim.paper_value is None or not interval.known:
        return None
    sign = -1.0 if claim.paper_value < 0 else 1.0
    low, high = sorted((sign * interval.low, sign * interval.high))
    if high < abs(claim.paper_value):
        return "excluded"
    return "exceeded" if low > abs(claim.paper_value) else "possible"


def why(claim: Statement, interval: stats.Interval, verdict: Verdict) -> str:
    """Return the reason of a verdict in a few words."""
    if verdict == "reproduced":
        return ""
    if claim.direction == "not_worse":
        return "the interval leaves the tolerance" if verdict == "inconclusive" else "a loss beyond the tolerance"
    if not interval.excludes_zero:
        return "the interval holds zero"
    if SIGN[claim.direction] * interval.estimate < 0:
        return "opposite direction"
    reaches = ", but the interval reaches it" if verdict == "inconclusive" else ""
    return f"same direction, smaller than the claim asks for{reaches}"
