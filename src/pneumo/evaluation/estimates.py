"""How sure a score is, and whether two differ: one distribution for intervals and p, over patients and seeds.

Seeds add spread to that of patients: training again would give other models. Patients and seeds are crossed
random effects, as cases and readers are in reader studies (Obuchowski and Rockette 1995).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

FloatArray = npt.NDArray[np.float64]

COVERAGE = 0.95
POWER = 0.8
MIN_SEED_FREEDOM = 2  # with 1, a 95 % interval reaches 12.7 standard errors to either side: nothing is known
MIN_PATIENTS = 10  # of each class; fewer may agree by chance, and then no draw differs from another
_LARGEST_POWER = 700.0  # of e, in a float64
_N_LEVELS = 12
_STEP = 0.1
_NODES = np.sinh(_STEP * np.arange(-120, 121))  # dense near 0, and as far out as any t distribution matters
_NEGLIGIBLE = 1e-15
_NODE_WIDTHS = _STEP * np.sqrt(1 + _NODES**2)


@dataclass(frozen=True)
class SeedSpread:
    """How far a run's score lies from the mean over the seeds of its combo, pooled over a model's combos.

    On one test set, runs differ for two reasons: training went differently, and each network errs on other
    images. The draws of patients hold the second part too; `in_draws` says how much, so that it counts once.

    Pooling assumes that the spread over seeds is the same in all combos of a model.

    Attributes:
        variance: of one run; nan where no combo has two seeds.
        in_draws: the part of it that the draws of patients hold; nan likewise.
        degrees_of_freedom: of the variance; 0 where no combo has two seeds.
    """

    variance: float
    in_draws: float
    degrees_of_freedom: int

    @property
    def is_known(self) -> bool:
        """Whether there are MIN_SEED_FREEDOM degrees of freedom or more."""
        return self.degrees_of_freedom >= MIN_SEED_FREEDOM


def pool_seeds(scores: Sequence[FloatArray]) -> SeedSpread:
    """Pool the variance over seeds within combos.

    Args:
        scores: for each combo of one model a float array of shape (k, 1 + n_draws), what its k seeds score on
            the whole test set and on each draw of patients. Seeds with an undefined score on the whole test
            set are left out.
    """
    combos = [defined for one in scores if len(defined := one[~np.isnan(one[:, 0])])]
    freedom = sum(len(one) - 1 for one in combos)
    if freedom == 0:
        return SeedSpread(float("nan"), float("nan"), 0)
    residuals = np.concatenate([one - one.mean(axis=0) for one in combos])
    drawn = residuals[:, 1:][:, ~np.isnan(residuals[:, 1:]).any(axis=0)]
    in_draws = drawn.var(axis=1, ddof=1).sum() / freedom if drawn.shape[1] > 1 else 0.0
    return SeedSpread(float((residuals[:, 0] ** 2).sum() / freedom), float(in_draws), freedom)


class Part(NamedTuple):
    """One of the two independent parts of an error: patients or seeds.

    Attributes:
        standard_error: 0 or more.
        degrees_of_freedom: of the standard error, above 0.
    """

    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of run scores: one score, a mean over seeds, or a difference of means.

    Its error is the sum of two parts, each distributed as Student's t times a standard error: patients and
    seeds. That is the distribution of Behrens (1929) and Fisher (1935). Intervals and p come from it, so
    that p is below 0.05 exactly where the 95 % interval excludes 0. With few seeds it is safer than one t
    distribution with Satterthwaite's degrees of freedom, which is too sure where the spread over seeds
    happens to come out small.

    Attributes:
        value: on the whole test set.
        patients: None where the spread over patients is not known.
        seeds: None where the spread over seeds is not known.
    """

    value: float
    patients: Part | None
    seeds: Part | None

    @property
    def interval_over(self) -> str:
        """What intervals are over: "patients and seeds", or "patients" for these trained networks alone."""
        return "patients" if self.seeds is None else "patients and seeds"

    @property
    def is_testable(self) -> bool:
        """Whether the spread over seeds is known and each class has MIN_PATIENTS patients or more."""
        is_enough = self.patients is not None and self.patients.degrees_of_freedom >= MIN_PATIENTS - 1
        return is_enough and self.seeds is not None

    @property
    def standard_error(self) -> float:
        """Over patients, and over seeds where their spread is known; nan where that over patients is not."""
        return float(np.sqrt(sum(part.standard_error**2 for part in self._parts))) if self._parts else np.nan

    @property
    def p(self) -> float:
        """Two-sided p that the sum is 0; nan unless it is testable."""
        if not self.is_testable:
            return float("nan")
        if self.standard_error == 0:
            return float(self.value == 0)
        return float(2 * _find_tail(abs(self.value), self._parts))

    def find_p_within(self, margin: float) -> float:
        """Return the p that the sum is -margin or less, or margin or more; nan unless it is testable.

        The greater p of two one-sided tests (Schuirmann 1987); where it is at most 0.05, the 90 % interval
        lies between -margin and margin.

        Args:
            margin: above 0.
        """
        if not self.is_testable:
            return float("nan")
        room = margin - abs(self.value)
        if self.standard_error == 0:
            return float(room <= 0)
        return float(_find_tail(room, self._parts))

    def find_interval(self, coverage: float = COVERAGE) -> tuple[float, float]:
        """Return the interval that lies as far to either side of the value; (nan, nan) where not known."""
        half = self._find_half(coverage)
        return self.value - half, self.value + half

    def find_score_interval(
        self, lowest: float, highest: float, coverage: float = COVERAGE
    ) -> tuple[float, float]:
        """Return the interval of a score that has bounds; (nan, nan) where not known.

        It is that of the score's logit, or of its logarithm where there is no upper bound, turned back: a
        score near 1 has a skewed distribution. At a bound itself no draw differs from another; there the
        interval is that of a proportion, none or all of as many patients as the smallest class has (Clopper
        and Pearson 1934).

        Args:
            lowest: bound of the score.
            highest: bound of the score, or infinity.
            coverage: a fraction in (0, 1).
        """
        half = self._find_half(coverage)
        if self.patients is None or np.isnan(half):
            return float("nan"), float("nan")
        above, below = self.value - lowest, highest - self.value
        if np.isinf(highest):
            if above <= 0:
                return float("nan"), float("nan")
            factor = np.exp(min(half / above, _LARGEST_POWER))
            return float(lowest + above / factor), float(lowest + above * factor)
        width = highest - lowest
        if above <= 0 or below <= 0:
            n_patients = self.patients.degrees_of_freedom + 1
            room = width * (1 - ((1 - coverage) / 2) ** (1 / n_patients))
            return (lowest, lowest + room) if above <= 0 else (highest - room, highest)
        center, reach = special.logit(above / width), half * (1 / above + 1 / below)
        return (
            float(lowest + width * special.expit(center - reach)),
            float(lowest + width * special.expit(center + reach)),
        )

    def find_detectable(self, level: float) -> float:
        """Return the difference that would be found in POWER of all such experiments; nan where p is.

        Args:
            level: a difference counts as found when its p is at most this.
        """
        if self.patients is None or self.seeds is None or not self.is_testable:
            return float("nan")
        if self.standard_error == 0:
            return 0.0
        # Experiments find different standard errors over seeds, so they need different differences.
        freedom = self.seeds.degrees_of_freedom
        halves, chances = special.roots_genlaguerre(_N_LEVELS, freedom / 2 - 1)  # of chi-square / 2
        found = self.seeds.standard_error * np.sqrt(2 * halves / freedom)
        needed = np.array([_find_quantile(level / 2, (self.patients, Part(each, freedom))) for each in found])

        def miss_power(difference: float) -> float:
            powers = special.ndtr((difference - needed) / self.standard_error)
            return float(powers @ chances / chances.sum()) - POWER

        return float(optimize.brentq(miss_power, 0, needed.max() + 10 * self.standard_error))

    @property
    def _parts(self) -> tuple[Part, ...]:
        return () if self.patients is None else (self.patients,) + ((self.seeds,) if self.seeds else ())

    def _find_half(self, coverage: float) -> float:
        return _find_quantile((1 - coverage) / 2, self._parts) if self._parts else float("nan")


def estimate(
    scores: FloatArray, patient_freedom: int, seeds: Sequence[tuple[SeedSpread, float]] = ()
) -> Estimate:
    """Estimate a weighted sum of run scores, over patients and seeds.

    The variance over seeds of run scores on one test set holds what networks differ by on these images. So
    the draws of patients contribute only what they vary by beyond that, as cases do in reader studies
    (Obuchowski and Rockette 1995).

    Args:
        scores: float array of shape (1 + n_draws,), the sum on the whole test set and on each draw of
            patients.
        patient_freedom: as `resampling.count_patient_freedom` returns it.
        seeds: for each model whose runs are in the sum, their spread and the sum of their squared weights;
            none for an estimate about these trained networks.
    """
    value, draws = float(scores[0]), scores[1:][~np.isnan(scores[1:])]
    if np.isnan(value) or len(draws) < max(2, len(scores) / 2) or patient_freedom < 1:
        return Estimate(value, None, None)
    variance = float(draws.var(ddof=1))
    is_over_seeds = bool(seeds) and all(spread.is_known for spread, _ in seeds)
    if is_over_seeds:
        # No more is taken off than seeds add, so that an interval is never narrower than over patients alone.
        variance -= sum(min(spread.in_draws, spread.variance) * weight for spread, weight in seeds)
    # In draws with replacement from n patients, a mean varies by (n - 1) / n of what it should.
    error = float(np.sqrt(max(0.0, variance) * (patient_freedom + 1) / patient_freedom))
    return Estimate(value, Part(error, patient_freedom), _join_spreads(seeds) if is_over_seeds else None)


def correct_holm(p: FloatArray) -> FloatArray:
    """Correct a family of p-values after Holm (1979); undefined ones stay so and are not counted."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def _join_spreads(seeds: Sequence[tuple[SeedSpread, float]]) -> Part:
    """Join the spreads of models, with the degrees of freedom of Satterthwaite (1946)."""
    parts = [(spread.variance * weight, spread.degrees_of_freedom) for spread, weight in seeds]
    total = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / squares if squares > 0 else float(sum(freedom for _, freedom in parts))
    return Part(float(np.sqrt(total)), freedom)


def _find_tail(distance: float, parts: Sequence[Part]) -> float:
    """Return the chance that a sum of parts, each t times its standard error, exceeds a distance."""
    *narrow, wide = sorted(parts)
    shifts, chances = np.zeros(1), np.ones(1)
    if narrow and narrow[0].standard_error > 0:
        nodes, chances = _weigh_nodes(narrow[0].degrees_of_freedom)
        shifts = nodes * narrow[0].standard_error
    beyond = special.stdtr(wide.degrees_of_freedom, (shifts - distance) / wide.standard_error)
    return float(chances @ beyond)


def _find_quantile(tail: float, parts: Sequence[Part]) -> float:
    """Return the distance that such a sum exceeds with the chance `tail`, below one half."""
    felt = [part for part in parts if part.standard_error > 0]
    shares = [
        part.standard_error * special.stdtrit(part.degrees_of_freedom, 1 - tail / len(felt)) for part in felt
    ]
    if len(felt) < 2:
        return float(sum(shares))
    # Where the sum exceeds all shares together, at least one part exceeds its own: the quantile lies below.
    return float(
        optimize.brentq(lambda distance: _find_tail(distance, felt) - tail, 0, sum(shares), rtol=1e-12)
    )


@lru_cache(maxsize=128)
def _weigh_nodes(degrees_of_freedom: float) -> tuple[FloatArray, FloatArray]:
    """Return the nodes that matter and the chances that Student's t lies there, by the trapezoidal rule."""
    chances = stats.t.pdf(_NODES, degrees_of_freedom) * _NODE_WIDTHS
    kept = chances > _NEGLIGIBLE
    return _NODES[kept], chances[kept]
