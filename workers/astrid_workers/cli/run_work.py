"""What `astrid run` does with two frames once they are read and calibrated.

Owns the order subtract, inject, measure at given positions; never reads, writes or prints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from astrid_workers.differencing.completeness import injection_numbers
from astrid_workers.differencing.forced_photometry import ForcedFluxes, forced_photometry
from astrid_workers.differencing.injection import Injected, InjectionOptions, inject_and_recover
from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.frame import Frame
from astrid_workers.positions import Positions

Tell = Callable[[str, float], None]

#: Share of the progress that subtraction takes when injections follow it.
SHARE_BEFORE_INJECTION = 0.3


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a run is to do."""

    options: DifferenceOptions
    #: None: no injections.
    injection: InjectionOptions | None = None
    #: None: no forced photometry.
    positions: Positions | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A finished pair, with what was asked for besides; None: not asked."""

    pair: PairResult
    injected: Injected | None
    #: The report's numbers of them.
    injections: dict[str, Any] | None
    positions: Positions | None
    forced: ForcedFluxes | None


def difference_and_measure(science: Frame, reference: Frame, asked: Asked, tell: Tell) -> Done:
    """Run one pair of calibrated frames. Raises as `run_pair`, and SettingRejected where positions on the sky
    meet a frame without a WCS: before any work.
    """
    positions = None if asked.positions is None else asked.positions.on(science.wcs)
    first = 1.0 if asked.injection is None else SHARE_BEFORE_INJECTION
    pair = run_pair(science, reference, asked.options, lambda step, share: tell(step, first * share))
    forced = None if positions is None else forced_photometry(pair, positions.x, positions.y)
    if asked.injection is None:
        return Done(pair, None, None, positions, forced)
    injected = inject_and_recover(
        pair, asked.options, asked.injection, lambda step, share: tell(step, first + (1 - first) * share)
    )
    threshold, zero_point = asked.options.threshold_sigma, pair.science.facts.zero_point_mag
    numbers = injection_numbers(injected, asked.injection, threshold, pair.science.unit, zero_point)
    return Done(pair, injected, numbers, positions, forced)
