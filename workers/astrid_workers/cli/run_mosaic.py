"""`astrid run` on a mosaic: every part of one observation by itself, and the results together.

Owns the loop over parts and what of each is kept; one part's pixels are in memory at a time. A part that
fails is named with its reason, and the others go on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from astrid_workers.cli.run_images import MosaicImages
from astrid_workers.cli.run_work import Asked, Done
from astrid_workers.differencing.completeness import injection_numbers
from astrid_workers.differencing.forced_photometry import ForcedFluxes
from astrid_workers.differencing.injection import Injected, joined
from astrid_workers.differencing.products import Candidate
from astrid_workers.errors import AstridError, SettingRejected
from astrid_workers.positions import Positions
from astrid_workers.report.candidate_table import candidates_ecsv
from astrid_workers.report.forced_table import forced_ecsv
from astrid_workers.report.pair_page import pair_numbers
from astrid_workers.storage.fits_parts import Part

Tell = Callable[[str, float], None]
#: Runs one part from its files to what it yields.
RunPart = Callable[[Part, Asked, Tell], Done]
#: Draws the page of one part: its result, its numbers.
DrawPage = Callable[[Done, dict[str, Any]], str]


@dataclass(slots=True)
class Mosaic:
    """What is kept of the parts."""

    #: Numbers of each part, storable as JSON, in the order of the file.
    parts: list[dict[str, Any]] = field(default_factory=list)
    #: Name and zero point of the part, candidate.
    candidates: list[tuple[str, float | None, Candidate]] = field(default_factory=list)
    forced: list[tuple[str, Positions, ForcedFluxes]] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    zero_points: set[float | None] = field(default_factory=set)
    unit: str | None = None
    #: Why the last part that failed did.
    failure: AstridError | None = None

    @property
    def n_done(self) -> int:
        """Parts that were differenced."""
        return sum(part["ending"] == "done" for part in self.parts)

    def injections(self, asked: Asked) -> dict[str, Any] | None:
        """The numbers of all parts' injections together; magnitudes only where all have one zero point."""
        if asked.injection is None or not self.injected or self.unit is None:
            return None
        zero_point = next(iter(self.zero_points)) if len(self.zero_points) == 1 else None
        threshold = asked.options.threshold_sigma
        return injection_numbers(joined(self.injected), asked.injection, threshold, self.unit, zero_point)


def run_mosaic(
    parts: Sequence[Part], asked: Asked, run_part: RunPart, draw: DrawPage, folder: Path, tell: Tell
) -> Mosaic:
    """Run every part, write its images and page into `folder`, and keep the rest.

    Injections are shared out over the parts. Raises SettingRejected for positions in pixels, which a mosaic
    does not have, and the last part's error when none could be differenced.
    """
    _refuse_pixel_positions(asked.positions)
    remove_pages(folder)
    each = asked
    if asked.injection is not None:
        each = replace(
            asked, injection=replace(asked.injection, count=math.ceil(asked.injection.count / len(parts)))
        )
    kept = Mosaic()
    with MosaicImages(folder) as images:
        for number, part in enumerate(parts):
            share = number / len(parts)
            try:
                done = run_part(
                    part,
                    _seeded(each, number),
                    lambda step, s, at=share, p=part: tell(  # type: ignore[misc]
                        f"{p.name}: {step}", at + s / len(parts)
                    ),
                )
                _keep(kept, part, done)
            except AstridError as error:
                kept.failure = error
                kept.parts.append({"name": part.name, "ending": "failed", "reason": str(error)})
                continue
            images.add(part.name, done.pair)
            page = folder / f"report-{part.name}.html"
            page.write_text(draw(done, kept.parts[-1]), encoding="utf-8")
    if kept.failure is not None and kept.n_done == 0:
        raise kept.failure
    return kept


def remove_pages(folder: Path) -> None:
    """Take away the pages of parts that an earlier run left."""
    for page in folder.glob("report-*.html"):
        page.unlink()


def _seeded(asked: Asked, number: int) -> Asked:
    """Other places in every part."""
    if asked.injection is None:
        return asked
    return replace(asked, injection=replace(asked.injection, seed=asked.injection.seed + number))


def _refuse_pixel_positions(positions: Positions | None) -> None:
    if positions is not None and np.isfinite(positions.x).any():
        msg = "the science file is a mosaic, where x and y do not say which part: give ra_deg and dec_deg"
        raise SettingRejected(msg)


def _keep(kept: Mosaic, part: Part, done: Done) -> None:
    unit = done.pair.difference.unit
    if kept.unit is not None and unit != kept.unit:
        msg = f"its unit is {unit}, that of the parts before it is {kept.unit}"
        raise SettingRejected(msg)
    kept.unit = unit
    kept.parts.append(
        {
            "name": part.name,
            "ending": "done",
            "reason": None,
            **pair_numbers(done.pair),
            "injections": done.injections,
        }
    )
    zero_point = done.pair.science.facts.zero_point_mag
    kept.candidates += [(part.name, zero_point, one) for one in done.pair.candidates.items]
    kept.zero_points.add(zero_point)
    if done.injected is not None:
        kept.injected.append(done.injected)
    if done.forced is not None and done.positions is not None:
        kept.forced.append((part.name, done.positions, done.forced))


def mosaic_candidates(kept: Mosaic) -> str:
    """candidates.ecsv of all parts, strongest first, with the column `part`."""
    rows = sorted(kept.candidates, key=lambda row: -abs(row[2].score))
    return candidates_ecsv(
        [one for _, _, one in rows],
        kept.unit or "",
        zero_point_mag=[zero_point for _, zero_point, _ in rows],
        parts=[name for name, _, _ in rows],
    )


def mosaic_forced(kept: Mosaic) -> str | None:
    """forced.ecsv: a row for each part that a position lies on, one without a part where it lies on none."""
    if not kept.forced:
        return None
    names: list[str] = []
    places: list[Positions] = []
    fluxes: list[ForcedFluxes] = []
    anywhere = np.zeros(len(kept.forced[0][1]), bool)
    for name, positions, forced in kept.forced:
        here = np.isfinite(forced.difference_flux) | np.isfinite(forced.science_flux)
        anywhere |= here
        names += [name] * int(np.count_nonzero(here))
        places.append(positions.only(here))
        fluxes.append(forced.only(here))
    _, positions, forced = kept.forced[0]
    names += [""] * int(np.count_nonzero(~anywhere))
    places.append(
        replace(positions, x=np.full(len(positions), np.nan), y=np.full(len(positions), np.nan)).only(
            ~anywhere
        )
    )
    fluxes.append(
        replace(forced, x=np.full(len(forced), np.nan), y=np.full(len(forced), np.nan)).only(~anywhere)
    )
    return forced_ecsv(Positions.joined(places), ForcedFluxes.joined(fluxes), kept.unit or "", parts=names)
