"""The search for the map from one frame to another: by both WCS, by one grid, by asterisms.

Owns which way is tried, in which order, and when its outcome is believed or refused; never resamples, and
never finds a star (`stars`) or a pair (`star_match`, `asterisms`) itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.celestial import pixel_of, sky_of
from astrid_workers.errors import NothingToDo, SubtractionRefused
from astrid_workers.frame import Frame
from astrid_workers.imaging.asterisms import AsterismMatch, match_asterisms
from astrid_workers.imaging.star_match import Affine, Match, Vote, match_stars, vote_on_shift
from astrid_workers.imaging.stars import Stars
from astrid_workers.mask import MaskBit

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Share of the science frame that the reference must cover.
REQUIRED_OVERLAP = 0.6
#: Matched stars below which, without a WCS, a registration is not believed.
FEWEST_MATCHES = 5
#: Share of the fewer list's stars that must match when there is no WCS.
REQUIRED_MATCH_SHARE = 0.25
#: How far a WCS may be wrong, in arcseconds and in pixels of the reference (the larger counts).
WCS_ERROR_ARCSEC, WCS_ERROR_PX = 15.0, 40.0
#: S/N from which a source counts for registration.
REGISTRATION_SNR = 8.0
#: Sources of each frame that are matched, and clean ones from which on no others are asked at first.
MOST_STARS, ENOUGH_CLEAN = 400, 60
#: Clean stars that both frames must have where a WCS says that they overlap, before their disagreement with
#: it speaks against the frames and not against the stars.
ENOUGH_TO_DOUBT = 20
#: Distance of the points at which coverage is looked at.
_COVERAGE_STEP_PX = 8


@dataclass(frozen=True, slots=True, eq=False)
class ThroughSky:
    """Science pixel → sky → reference pixel → measured correction."""

    science: WCS
    reference: WCS
    correction: Affine

    def __call__(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        return self.correction(*self.predicted(x, y))

    def predicted(self, x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Without the correction; NaN where the sky has no place in the reference's projection."""
        return pixel_of(self.reference, *sky_of(self.science, x, y))


def through_headers(science: Frame, reference: Frame) -> ThroughSky | None:
    if science.wcs is None or reference.wcs is None:
        return None
    return ThroughSky(science.wcs, reference.wcs, Affine.of_shift(0, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A map, the pairs of stars that it rests on in two lists, and the way in which it was found."""

    mapping: "ThroughSky | Affine"
    match: Match | None
    method: str
    first: Stars
    second: Stars


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Two lists of stars, and what the headers say of them."""

    science: Frame
    reference: Frame
    first: Stars
    second: Stars
    through: ThroughSky | None

    def by_headers(self) -> Found:
        """Through both WCS; by asterisms where the frames or their stars contradict them."""
        assert self.through is not None
        overlap = coverage(self.science, self.reference, self.through)
        if overlap < REQUIRED_OVERLAP:
            blind = self._asterisms()
            if not self._stands(blind):
                refuse_little_overlap(overlap)
            return self._by_asterisms(blind)
        match, vote = self._matched()
        if match is not None and match.is_significant:
            return self._found(replace(self.through, correction=match.map), match, "wcs+stars")
        blind = self._asterisms()
        if self._stands(blind):
            return self._by_asterisms(blind)
        clean = [np.count_nonzero(stars.clean[near]) for stars, near in self._in_common()]
        if min(clean) >= ENOUGH_TO_DOUBT:
            raise self._refusal("the stars contradict the headers' WCS", match, vote, blind)
        return self._found(self.through, None, "wcs")

    def by_one_grid(self) -> Found:
        """As if the frames had one grid; by asterisms where the stars do not agree with that."""
        match, vote = self._matched()
        if match is not None and match.is_significant and match.first.size >= self._needed(match.map):
            return self._found(match.map, match, "stars")
        blind = self._asterisms()
        if self._stands(blind):
            return self._by_asterisms(blind)
        raise self._refusal("no WCS", match, vote, blind)

    def _found(self, mapping: "ThroughSky | Affine", match: Match | None, method: str) -> Found:
        return Found(mapping, match, method, self.first, self.second)

    def _matched(self) -> tuple[Match | None, Vote]:
        """Pairs and map; first the vote on a shift, then the refinement."""
        first, second, through = self.first, self.second, self.through
        x, y = (first.x, first.y) if through is None else through.predicted(first.x, first.y)
        placed = np.isfinite(x) & np.isfinite(y)
        if through is None:
            within = 0.5 * float(max(*self.science.shape, *self.reference.shape))
        else:
            scale = self.reference.facts.pixel_scale_arcsec
            within = max(WCS_ERROR_PX, WCS_ERROR_ARCSEC / scale if scale else 0.0)
        ny, nx = self.reference.shape
        near = placed & (x > -within) & (y > -within) & (x < nx + within) & (y < ny + within)
        index = np.flatnonzero(near)
        vote = vote_on_shift(x[index], y[index], second.x, second.y, within)
        if vote.votes < 3:
            return None, vote
        start = Affine.of_shift(vote.dx, vote.dy)
        sigma = _centring_error(first)[index]
        match = match_stars(x[index], y[index], second.x, second.y, start, 1.5 * vote.bin_px, sigma)
        return (None if match is None else replace(match, first=index[match.first])), vote

    def _places(self) -> tuple[Float64Array, Float64Array, bool]:
        """Where the headers put the science frame's stars in the reference, if they put them all anywhere.

        Else the stars' own places, and False.
        """
        if self.through is not None:
            x, y = self.through.predicted(self.first.x, self.first.y)
            if np.isfinite(x).all() and np.isfinite(y).all():
                return x, y, True
        return self.first.x, self.first.y, False

    def _asterisms(self) -> AsterismMatch:
        x, y, _ = self._places()
        return match_asterisms(x, y, self.second.x, self.second.y, _centring_error(self.first))

    def _by_asterisms(self, blind: AsterismMatch) -> Found:
        assert blind.match is not None
        return self._found(self._mapping(blind.match.map), blind.match, "asterisms")

    def _mapping(self, measured: Affine) -> "ThroughSky | Affine":
        _, _, are_predicted = self._places()
        if self.through is None or not are_predicted:
            return measured
        return replace(self.through, correction=measured)

    def _stands(self, blind: AsterismMatch) -> bool:
        """Whether chance is ruled out, and so many stars agree that nothing else can be."""
        if blind.match is None or not blind.is_significant:
            return False
        return blind.n_matched >= self._needed(self._mapping(blind.match.map))

    def _needed(self, mapping: "ThroughSky | Affine") -> int:
        """Stars that must match: a share of those of the shorter list that lie on both frames."""
        inside = [int(np.count_nonzero(near)) for _, near in self._in_common(mapping)]
        return max(FEWEST_MATCHES, int(np.ceil(REQUIRED_MATCH_SHARE * min(*inside, 100))))

    def _in_common(
        self, mapping: "ThroughSky | Affine | None" = None
    ) -> tuple[tuple[Stars, BoolArray], tuple[Stars, BoolArray]]:
        """Both lists, with which of their stars lie on the other frame, or in the box that holds it."""
        chosen = self.through if mapping is None else mapping
        assert chosen is not None
        ny, nx = self.reference.shape
        x, y = chosen(self.first.x, self.first.y)
        with np.errstate(invalid="ignore"):
            here = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
        height, width = self.science.shape
        edge_x, edge_y = chosen(
            np.array([0.0, width, width, 0.0]) - 0.5, np.array([0.0, 0.0, height, height]) - 0.5
        )
        there = (
            (self.second.x > np.nanmin(edge_x))
            & (self.second.x < np.nanmax(edge_x))
            & (self.second.y > np.nanmin(edge_y))
            & (self.second.y < np.nanmax(edge_y))
        )
        return (self.first, here), (self.second, there)

    def _refusal(self, why: str, match: Match | None, vote: Vote, blind: AsterismMatch) -> SubtractionRefused:
        """What was tried, how many stars agreed, and how many it takes."""
        n_science, n_reference = len(self.first), len(self.second)
        found = 0 if match is None else int(match.first.size)
        needed = max(FEWEST_MATCHES, int(np.ceil(REQUIRED_MATCH_SHARE * min(n_science, n_reference, 100))))
        pairs = "no pairs" if match is None else f"{found} pairs with a scatter of {match.rms_px:.2g} px"
        chance = vote.by_chance if match is None else match.by_chance
        msg = (
            f"{why}, and the stars show no significant registration: {pairs} among {n_science} sources"
            f" of the science frame and {n_reference} of the reference, where chance makes {chance:.2g}, and"
            f" {blind.n_matched} by asterisms ({blind.votes} of {blind.n_hits} alike ones agree);"
            f" need {needed} that are not chance"
        )
        return SubtractionRefused(
            msg,
            matched=found,
            required=needed,
            by_chance=round(chance, 2),
            science_stars=n_science,
            reference_stars=n_reference,
            matched_by_asterisms=blind.n_matched,
            asterism_votes=blind.votes,
            asterism_hits=blind.n_hits,
        )


def search_map(science: Frame, reference: Frame, first: Stars, second: Stars) -> Found:
    """The map from `science` to `reference` by their sources.

    Clean stars where a frame has enough of them, which lie where they are said to; where these do not show a
    map, all sources: in a crowd, or among galaxies, other stars may be clean in the other frame. Raises as
    `align.measure_registration` does.
    """
    through = through_headers(science, reference)
    every = _measured(first), _measured(second)
    clean = _clean_where_enough(every[0]), _clean_where_enough(every[1])
    found, failure = _tried(Search(science, reference, *_brightest(clean), through))
    is_all = len(clean[0]) == len(every[0]) and len(clean[1]) == len(every[1])
    if not is_all and (found is None or found.match is None):
        with_all, failure_with_all = _tried(Search(science, reference, *_brightest(every), through))
        found, failure = with_all or found, failure_with_all or failure
    if found is None:
        assert failure is not None
        raise failure
    return found


def _tried(search: Search) -> tuple[Found | None, SubtractionRefused | NothingToDo | None]:
    """What a search finds, or why it finds nothing."""
    try:
        return search.by_one_grid() if search.through is None else search.by_headers(), None
    except (SubtractionRefused, NothingToDo) as why:
        return None, why


def _measured(stars: Stars) -> Stars:
    """Sources with a measured shape and enough light, brightest first."""
    return stars.only(np.isfinite(stars.fwhm_px) & (stars.snr > REGISTRATION_SNR))


def _clean_where_enough(stars: Stars) -> Stars:
    return stars.only(stars.clean) if np.count_nonzero(stars.clean) >= ENOUGH_CLEAN else stars


def _brightest(lists: tuple[Stars, Stars]) -> tuple[Stars, Stars]:
    first, second = (stars.only(np.arange(len(stars)) < MOST_STARS) for stars in lists)
    return first, second


def _centring_error(stars: Stars) -> Float64Array:
    """About FWHM / (2.35 S/N), with a floor of 0.02 px for what the profile does not show."""
    return np.hypot(stars.fwhm_px / (2.35 * np.maximum(stars.snr, 1.0)), 0.02)


def coverage(
    science: Frame,
    reference: Frame,
    mapping: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]],
) -> float:
    """Share of the science frame's measured pixels that lie on measured ones of the reference, on a coarse
    grid.
    """
    ny, nx = science.shape
    y, x = np.meshgrid(
        np.arange(_COVERAGE_STEP_PX // 2, ny, _COVERAGE_STEP_PX),
        np.arange(_COVERAGE_STEP_PX // 2, nx, _COVERAGE_STEP_PX),
        indexing="ij",
    )
    measured = (science.mask[y, x] & np.uint32(MaskBit.NO_DATA)) == 0
    if not measured.any():
        return 0.0
    px, py = mapping(x[measured].astype(float), y[measured].astype(float))
    my, mx = reference.shape
    with np.errstate(invalid="ignore"):
        inside = (px > -0.5) & (py > -0.5) & (px < mx - 0.5) & (py < my - 0.5)
    columns, rows = np.rint(px[inside]).astype(int), np.rint(py[inside]).astype(int)
    covered = (reference.mask[rows, columns] & np.uint32(MaskBit.NO_DATA)) == 0
    return float(np.count_nonzero(covered) / measured.sum())


def refuse_little_overlap(overlap: float) -> float:
    if overlap < REQUIRED_OVERLAP:
        msg = f"overlap {100 * overlap:.0f} %, need {100 * REQUIRED_OVERLAP:.0f} %"
        raise NothingToDo(msg, overlap_fraction=round(overlap, 4), required_overlap_fraction=REQUIRED_OVERLAP)
    return overlap
