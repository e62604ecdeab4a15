"""How deep a frame is: sources of known flux put into it, and subtracted and searched like the rest.

Owns where they go, how they are drawn and which of them came back; `completeness` says what that means. Never
changes the frame that it was given, and draws from nothing but the seed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from astrid_workers.defaults import INJECTION_SEED
from astrid_workers.differencing.difference import difference
from astrid_workers.differencing.direct_hits import direct_science, without_hits
from astrid_workers.differencing.extract_sources import extract_sources
from astrid_workers.differencing.forced_photometry import difference_fluxes
from astrid_workers.differencing.measure import sky_of, unusable_pixels
from astrid_workers.differencing.pair import PairResult
from astrid_workers.differencing.products import Candidate, Difference, DifferenceOptions
from astrid_workers.frame import Frame
from astrid_workers.imaging.cosmic_rays import find_cosmic_rays
from astrid_workers.imaging.grow import grow
from astrid_workers.imaging.point_sources import render_points
from astrid_workers.imaging.psf import Psf
from astrid_workers.mask import MaskBit

Floats = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Progress = Callable[[str, float], None]

#: Distances in FWHM: side of a grid cell, between sources, to candidates, to what is masked, of a match.
CELL_FWHM, APART_FWHM, CLEAR_OF_CANDIDATES_FWHM, CLEAR_OF_MASK_FWHM, MATCH_FWHM = 10.0, 4.0, 4.0, 1.0, 1.0
#: Part of a cell, about its middle, in which its source may lie.
JITTER = 0.6
#: Scatter of a source about the one that it is put on, in FWHM, per axis.
ON_SOURCE_SCATTER_FWHM = 0.3
#: Injected in one pass, of each kind, as a share of the frame's sources. More on sources would be taken for a
#: misregistration; more on blank sky enter the PSF and the match (a quarter more sources: 4 % in flux).
SHARE_OF_SOURCES = 0.08
#: Most times that a frame is subtracted anew; the report says how many sources fitted.
MOST_PASSES = 8
#: Draws per cell before it is left empty; after one that fits, the rest of its cell has no room.
TRIES = 3


@dataclass(frozen=True, slots=True)
class InjectionOptions:
    """How many sources, how bright, and the seed; the same options give the same places and photons."""

    count: int = 200
    seed: int = INJECTION_SEED
    #: S/N as the difference's `flux_error` at the place has it; drawn log-uniform.
    least_snr: float = 2.0
    most_snr: float = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Injected:
    """One row per injected source; arrays of one length. NaN in `found_*` where it did not come back."""

    x: Floats
    y: Floats
    #: Unit of the science frame, and over the difference's flux error at the place before it was there.
    flux: Floats
    snr: Floats
    #: Put on a source of the science frame; the others are on blank sky.
    on_source: BoolArray
    #: Delivered as a positive candidate within one FWHM, and delivered with a flag.
    found: BoolArray
    flagged: BoolArray
    found_x: Floats
    found_y: Floats
    found_x_err: Floats
    found_y_err: Floats
    found_flux: Floats
    found_flux_err: Floats
    #: Flux of the difference at the place with the source less that without it, found or not: what
    #: subtraction makes of its light, with the same noise on both sides.
    gained_flux: Floats

    def __len__(self) -> int:
        return self.x.size

    def only(self, keep: BoolArray) -> "Injected":
        """The rows where `keep` is True."""
        return Injected(*(getattr(self, field.name)[keep] for field in fields(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where sources of one pass go: 0-based pixels of the science frame, arrays of one length."""

    x: Floats
    y: Floats
    on_source: BoolArray


def inject_and_recover(
    pair: PairResult,
    options: DifferenceOptions | None = None,
    injection: InjectionOptions | None = None,
    progress: Progress | None = None,
) -> Injected:
    """Inject sources into the science frame of a finished pair, subtract and extract again, and match.

    Half on blank sky, half on sources, away from candidates and masks; the noise of their own photons is
    drawn where the unit is the electron. The reference is taken as it was aligned. As many passes are made
    as keep each one sparse: PSF, match and noise must see what a frame with one transient would show. Fewer
    than asked come back when the frame has no room. Cosmic rays are looked for again at the injected sources.
    Raises as `difference` does.
    """
    options, injection = options or DifferenceOptions(), injection or InjectionOptions()
    tell = progress or (lambda _step, _share: None)
    rng = np.random.default_rng(injection.seed)
    passes = list(_passes(pair, options, injection.count, rng))
    snr = _snr(injection, sum(places.x.size for places in passes), rng)
    rows, start = [], 0
    for number, places in enumerate(passes):
        tell(f"inject, {number + 1} of {len(passes)}", number / len(passes))
        stop = start + places.x.size
        rows.append(_one_pass(pair, options, places, snr[start:stop], rng))
        start = stop
    tell("injected", 1.0)
    return joined(rows)


def choose_places(
    allowed: BoolArray,
    sources: BoolArray,
    stars: tuple[Floats, Floats],
    fwhm_px: float,
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> Places:
    """At most `counts` (on source, blank) places, 4 FWHM apart: on `stars` (x, y), and on a jittered grid.

    `allowed` pixels may hold a source; blank is allowed and not in `sources`. Cells of the grid have 10 FWHM,
    or more where the count leaves room.
    """
    reach = int(np.ceil(APART_FWHM * fwhm_px))
    beside = _beside(stars, ON_SOURCE_SCATTER_FWHM * fwhm_px, rng)
    hosted = _first(counts[0], beside, _Room(allowed.copy(), reach))
    room = _Room(allowed & ~sources, reach)
    _first(len(hosted), hosted, room)
    side = max(CELL_FWHM * fwhm_px, float(np.sqrt(np.count_nonzero(allowed) / max(counts[1], 1))))
    blank = _first(counts[1], _jittered(allowed.shape, side, rng), room)
    found = np.array([*hosted, *blank], float).reshape(-1, 2)
    return Places(found[:, 0], found[:, 1], np.arange(len(found)) < len(hosted))


def _first(count: int, places: Iterable[tuple[float, float]], room: "_Room") -> list[tuple[float, float]]:
    """The first `count` places that have room."""
    return list(islice((place for place in places if room.takes(*place)), count))


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Pixels that may still take a source; each one that is taken clears a square about it, in place."""

    free: BoolArray
    reach_px: int

    def takes(self, x: float, y: float) -> bool:
        """Whether a source at `x, y` has room; if so, its surroundings have none afterwards."""
        column, row, reach = round(x), round(y), self.reach_px
        ny, nx = self.free.shape
        if not (0 <= row < ny and 0 <= column < nx and self.free[row, column]):
            return False
        self.free[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = False
        return True


def _beside(
    stars: tuple[Floats, Floats], scatter_px: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Places about the stars, in random order."""
    order = rng.permutation(stars[0].size)
    offsets = rng.normal(0, scatter_px, (2, order.size))
    return [
        (float(x), float(y))
        for x, y in zip(stars[0][order] + offsets[0], stars[1][order] + offsets[1], strict=True)
    ]


def _jittered(shape: tuple[int, ...], side: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Places in the cells of a grid, a few tries for each, cells in random order."""
    rows, columns = max(int(shape[0] // side), 1), max(int(shape[1] // side), 1)
    height, width = shape[0] / rows, shape[1] / columns
    for cell in rng.permutation(rows * columns):
        row, column = divmod(int(cell), columns)
        for up, along in 0.5 + rng.uniform(-JITTER / 2, JITTER / 2, (TRIES, 2)):
            yield (column + along) * width - 0.5, (row + up) * height - 0.5


def _passes(
    pair: PairResult, options: DifferenceOptions, count: int, rng: np.random.Generator
) -> Iterator[Places]:
    """Places until there are enough, the frame has no room, or it would take too many passes."""
    sky, fwhm = sky_of(pair.science, options), _fwhm(pair.difference)
    allowed = _allowed(pair.difference, pair.candidates.items)
    per_pass = int(np.ceil(SHARE_OF_SOURCES * len(sky.stars)))
    on_source = count // 2
    blank = count - on_source
    for _ in range(MOST_PASSES):
        counts = min(on_source, per_pass), min(blank, per_pass)
        places = choose_places(allowed, sky.background.sources, (sky.stars.x, sky.stars.y), fwhm, counts, rng)
        if places.x.size:
            yield places
        hosted = int(np.count_nonzero(places.on_source))
        on_source, blank = on_source - hosted, blank - (places.x.size - hosted)
        if on_source + blank <= 0 or places.x.size == 0:
            return


def _allowed(difference: Difference, candidates: tuple[Candidate, ...]) -> BoolArray:
    """Measured, clear of masks and of the edge, and of what was found without any injection."""
    lost = ~np.isfinite(difference.score) | ~np.isfinite(difference.flux_error)
    lost |= (difference.mask & np.uint32(MaskBit.EDGE)) != 0
    fwhm = _fwhm(difference)
    allowed = ~grow(lost, int(np.ceil(CLEAR_OF_MASK_FWHM * fwhm)))
    reach = int(np.ceil(CLEAR_OF_CANDIDATES_FWHM * fwhm))
    for c in candidates:
        row, column = round(c.y), round(c.x)
        allowed[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = False
    return allowed


def _fwhm(difference: Difference) -> float:
    return max(difference.fwhm_science_px, difference.fwhm_reference_px)


def _snr(injection: InjectionOptions, n: int, rng: np.random.Generator) -> Floats:
    """Log-uniform, one draw in each of `n` equal parts of the range, in random order."""
    share = (np.arange(n) + rng.uniform(size=n)) / max(n, 1)
    low, high = np.log(injection.least_snr), np.log(injection.most_snr)
    return np.asarray(rng.permutation(np.exp(low + share * (high - low))))


def _one_pass(
    pair: PairResult, options: DifferenceOptions, places: Places, snr: Floats, rng: np.random.Generator
) -> Injected:
    before, error = difference_fluxes(pair.difference, places.x, places.y)
    flux = snr * error
    psf = pair.difference.psf_science
    frame = with_sources(pair.science, psf, places.x, places.y, flux, rng)
    made = difference(frame, pair.reference, options=options)
    found = extract_sources(made, threshold_sigma=options.threshold_sigma)
    delivered = without_hits(found, direct_science(frame, made)).items
    after, _ = difference_fluxes(made, places.x, places.y)
    return _matched(places, flux, snr, after - before, delivered, MATCH_FWHM * _fwhm(made))


def with_sources(
    frame: Frame, psf: Psf, x: Floats, y: Floats, flux: Floats, rng: np.random.Generator
) -> Frame:
    """`frame` with point sources at 0-based places, their photons drawn where its unit is the electron.

    Its variance grows by those photons. Pixels at or above the saturation level become `SATURATED`, and what
    the cosmic-ray finder takes for a ray within a FWHM of a source becomes `COSMIC_RAY`: both are what would
    happen to a real source.
    """
    light = render_points(frame.shape, psf, x, y, flux)
    photons = np.maximum(light, np.float32(0)) if frame.unit == "electron" else np.zeros_like(light)
    drawn = light + rng.poisson(photons).astype(np.float32) - photons
    lost = (frame.mask & np.uint32(MaskBit.NO_DATA)) != 0
    science = frame.science + np.where(lost, np.float32(0), drawn)
    mask = frame.mask.copy()
    level = frame.facts.saturation
    if level is not None:
        mask[(science >= level) & (frame.science < level)] |= np.uint32(MaskBit.SATURATED)
    brighter = replace(frame, science=science, variance=frame.variance + photons, mask=mask)
    rays = find_cosmic_rays(science, brighter.variance, psf.fwhm_px, unusable=unusable_pixels(brighter))
    mask[rays & _around(frame.shape, x, y, psf.fwhm_px)] |= np.uint32(MaskBit.COSMIC_RAY)
    return brighter


def _around(shape: tuple[int, int], x: Floats, y: Floats, reach_px: float) -> BoolArray:
    """Pixels within `reach_px` (a square) of any of the places."""
    near = np.zeros(shape, bool)
    rows, columns = np.rint(y).astype(int), np.rint(x).astype(int)
    near[np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)] = True
    return grow(near, int(np.ceil(reach_px)))


def _matched(
    places: Places, flux: Floats, snr: Floats, gained: Floats, found: tuple[Candidate, ...], within: float
) -> Injected:
    """Each source with the nearest positive candidate within reach."""
    n = places.x.size
    rows = np.full((6, n), np.nan)
    flagged = np.zeros(n, bool)
    positive = [c for c in found if c.is_positive]
    if positive and n:
        distance, index = cKDTree([(c.x, c.y) for c in positive]).query(
            np.stack([places.x, places.y], axis=1), distance_upper_bound=within
        )
        for i in np.flatnonzero(np.isfinite(distance)):
            c = positive[index[i]]
            rows[:, i] = c.x, c.y, c.x_err, c.y_err, c.flux, c.flux_err
            flagged[i] = c.is_doubted
    x, y, x_err, y_err, found_flux, flux_err = rows
    return Injected(
        places.x, places.y, flux, snr, places.on_source, np.isfinite(x), flagged,
        x, y, x_err, y_err, found_flux, flux_err, gained,
    )  # fmt: skip


def joined(parts: Sequence[Injected]) -> Injected:
    """The rows of all."""
    if not parts:
        empty = Places(np.zeros(0), np.zeros(0), np.zeros(0, bool))
        return _matched(empty, empty.x, empty.x, empty.x, (), 1.0)
    return Injected(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Injected)))
