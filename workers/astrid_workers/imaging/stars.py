"""Point sources of one frame: where they are, how wide, and which may be trusted as stars.

Owns finding and shape measurement; never models the PSF (`psf.py` does) and never changes the image.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

from astrid_workers.errors import FrameRejected
from astrid_workers.frame import Float32Image, Uint32Image
from astrid_workers.imaging.background import Background
from astrid_workers.imaging.cosmic_rays import is_sharper
from astrid_workers.imaging.moments import adaptive_moments
from astrid_workers.imaging.star_widths import like_stars
from astrid_workers.mask import UNUSABLE, MaskBit

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Sources that are measured at most: the brightest ones.
MOST_SOURCES = 2000
#: Share of the threshold that pixels are detected at, in sigmas of one pixel, after sep's filter (1, 2, 1)²
#: / 16, which leaves 0.375 of white noise: below, most of the time goes into specks that are no sources.
PIXEL_SHARE = 0.3
#: Share of a blend's light from which a peak in it is a source by itself: neighbours in the wing of a bright
#: star must be known to be left out of its PSF.
BLEND_SHARE = 0.0005
#: Levels at which a blend is looked for peaks: what takes the most time.
BLEND_LEVELS = 24
#: Parts into which one blend may fall; sep's own limit is a quarter of it, and it gives up there.
MOST_IN_A_BLEND = 4096
#: Times the threshold at which sources are looked for first where so many pixels per source that is wanted
#: stand out, one per so many each way being counted: when so large a surplus comes out, the brightest ones,
#: which alone are kept, are among it.
HIGHER, CROWDED_PX, _EACH, SURPLUS = (4.0, 2.0), 70, 3, 1.25
#: A source is no clean star when others of the same blend have this share of its light.
SPOILING_SHARE = 0.005
#: Sources of a blend touch within the radius of one of them and so many typical ones.
TOUCHING = 2.0
#: Room on sep's stack of detected pixels beyond the pixels above the threshold, and rows counted together.
STACK_MARGIN, _ROWS = 10_000, 64
#: Side of a piece that sep sees at once, of a frame that is larger by half, and what it sees around it.
PIECE_PX, OVERLAP_PX = 2048, 96
#: Pixels of stars that tell their common profile well enough: its width changes by 0.2 % with more.
ENOUGH_PROFILE = 8000
#: Width below which nothing is a star: cosmic rays and hot pixels are narrower.
NARROWEST_PX = 1.2
#: Threshold and number of sources from which a width alone is measured, clean stars that suffice for it, and
#: the share of the sources that may clip.
BRIGHT_SIGMA, MOST_BRIGHT, ENOUGH_BRIGHT, MOST_CLIPPING = 14.0, 500, 10, 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Stars:
    """Sources of one frame, brightest first; all arrays have one length.

    Places are 0-based pixels, centroids of a Gaussian fitted by adaptive moments (Bernstein & Jarvis 2002).
    """

    x: Float64Array
    y: Float64Array
    #: Flux of the fitted Gaussian in the image's unit: proportional to a star's flux, short by the profile's
    #: wings. Of the pixels that were detected where the fit failed: a blend, a saturated star.
    flux: Float64Array
    #: Full width at half maximum, geometric mean of the axes: the Gaussian's, times the ratio by which the
    #: frame's stacked star profile differs from a Gaussian. NaN where the fit failed.
    fwhm_px: Float64Array
    #: 1 - b/a of the fitted Gaussian.
    ellipticity: Float64Array
    #: Brightest pixel above the background.
    peak: Float64Array
    snr: Float64Array
    #: True: isolated, unsaturated, unmasked, away from the edge, and as wide and round as a star of this
    #: frame.
    clean: BoolArray

    def __len__(self) -> int:
        return self.x.size

    def with_clean(self, clean: BoolArray) -> "Stars":
        """The same sources, with others that may be trusted as stars."""
        return replace(self, clean=clean)

    def only(self, keep: BoolArray | NDArray[np.intp]) -> "Stars":
        """The sources picked by a boolean or index array."""
        return Stars(
            self.x[keep],
            self.y[keep],
            self.flux[keep],
            self.fwhm_px[keep],
            self.ellipticity[keep],
            self.peak[keep],
            self.snr[keep],
            self.clean[keep],
        )


def find_stars(
    image: Float32Image,
    background: Background,
    mask: Uint32Image | None = None,
    *,
    threshold_sigma: float = 5.0,
    most: int = MOST_SOURCES,
) -> Stars:
    """Sources of `image` (float32 `[y, x]`, sky included) above `threshold_sigma`, with `clean` telling the
    stars.

    `mask` holds bits of `MaskBit`; unusable pixels are not detected on, except saturated ones, whose star is
    found and never clean. An empty frame gives an empty `Stars`. The result depends on its arguments only.
    """
    bits = np.zeros(image.shape, np.uint32) if mask is None else mask
    residual = np.ascontiguousarray(image - background.level, dtype=np.float32)
    hidden = (bits & np.uint32(UNUSABLE & ~MaskBit.SATURATED)) != 0
    residual[hidden] = 0
    rows = _brightest(residual, background.rms, threshold_sigma, most)
    if rows.size == 0:
        return _none()
    return _measured(rows, residual, bits, background, threshold_sigma)


def frame_fwhm_px(stars: Stars) -> float:
    """Median FWHM of the clean stars, in pixels; NaN when there are none."""
    widths = stars.fwhm_px[stars.clean]
    return float(np.median(widths)) if widths.size else float("nan")


def measure_fwhm_px(image: Float32Image, background: Background, mask: Uint32Image | None = None) -> float:
    """FWHM of the frame's stars, from its bright ones where they suffice; NaN without clean stars.

    They do not where most of them clip: galaxies as bright, which do not, would be taken for the stars.
    """
    bright = find_stars(image, background, mask, threshold_sigma=BRIGHT_SIGMA, most=MOST_BRIGHT)
    clips = mask is not None and _share_saturated(mask, bright) > MOST_CLIPPING
    if np.count_nonzero(bright.clean) >= ENOUGH_BRIGHT and not clips:
        return frame_fwhm_px(bright)
    return frame_fwhm_px(find_stars(image, background, mask))


def _share_saturated(mask: Uint32Image, stars: Stars) -> float:
    """Of sources that are saturated at their centroid; 0 of none."""
    lines = np.clip(np.rint(stars.y).astype(int), 0, mask.shape[0] - 1)
    columns = np.clip(np.rint(stars.x).astype(int), 0, mask.shape[1] - 1)
    clips = (mask[lines, columns] & np.uint32(MaskBit.SATURATED)) != 0
    return float(clips.mean()) if clips.size else 0.0


def _brightest(
    residual: Float32Image, rms: Float32Image, threshold_sigma: float, most: int
) -> NDArray[np.void]:
    """The `most` sources of the most light, brightest first, without a search for faint ones where bright
    ones are enough.
    """
    some = (slice(None, None, _EACH), slice(None, None, _EACH))
    pulls = residual[some] / rms[some]
    for times in HIGHER:
        n_pixels = np.count_nonzero(pulls > PIXEL_SHARE * times * threshold_sigma) * _EACH**2
        if n_pixels > CROWDED_PX * most:
            rows = _extracted(residual, rms, times * threshold_sigma)
            if rows.size > SURPLUS * most:
                break
    else:
        rows = _extracted(residual, rms, threshold_sigma)
    brightest: NDArray[np.void] = rows[np.argsort(-rows["flux"], kind="stable")][:most]
    return brightest


def _extracted(residual: Float32Image, rms: Float32Image, threshold_sigma: float) -> NDArray[np.void]:
    """What sep detects, piece by piece: it compares every source with every other, so that time would grow
    with the square of a large frame's area.
    """
    rows, columns = (np.linspace(0, n, max(1, round(n / PIECE_PX)) + 1).astype(int) for n in residual.shape)
    found: NDArray[np.void] = np.concatenate(
        [
            _extracted_of(residual, rms, threshold_sigma, (top, bottom), (left, right))
            for top, bottom in pairwise(rows)
            for left, right in pairwise(columns)
        ]
    )
    noise = np.sqrt(np.maximum(found["npix"], 1))
    kept: NDArray[np.void] = found[(found["flux"] > threshold_sigma * noise) & (found["a"] > 0)]
    lines = np.clip(np.rint(kept["y"]).astype(int), 0, residual.shape[0] - 1)
    places = np.clip(np.rint(kept["x"]).astype(int), 0, residual.shape[1] - 1)
    for of in ("flux", "peak"):
        kept[of] *= rms[lines, places]
    return kept


def _extracted_of(
    residual: Float32Image,
    rms: Float32Image,
    threshold_sigma: float,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> NDArray[np.void]:
    """The sources whose centroids lie in one piece, seen with what surrounds it; places in the frame's
    pixels, fluxes in sigmas of one pixel: with a noise map of its own sep would filter that, too.
    """
    top, left = max(rows[0] - OVERLAP_PX, 0), max(columns[0] - OVERLAP_PX, 0)
    window = (slice(top, rows[1] + OVERLAP_PX), slice(left, columns[1] + OVERLAP_PX))
    part = residual[window] / rms[window]
    threshold = PIXEL_SHARE * threshold_sigma
    # sep writes to all of its stack before it starts: it is made as large as it can get, and no larger
    sep.set_extract_pixstack(_most_detected(part, threshold))
    sep.set_sub_object_limit(MOST_IN_A_BLEND)
    try:
        found: NDArray[np.void] = sep.extract(
            part, threshold, minarea=5, deblend_nthresh=BLEND_LEVELS, deblend_cont=BLEND_SHARE, clean=True
        )
    except Exception as error:  # sep raises no other
        msg = f"sources cannot be told apart ({error}): its noise is not what the sky's scatter says"
        raise FrameRejected(msg) from error
    found["x"] += left
    found["y"] += top
    own = _within(found["y"], rows, residual.shape[0]) & _within(found["x"], columns, residual.shape[1])
    kept: NDArray[np.void] = found[own]
    return kept


def _within(places: Float64Array, ends: tuple[int, int], size: int) -> BoolArray:
    """At or beyond the first end and short of the second; the frame's own ends keep what lies beyond them."""
    first = ends[0] if ends[0] > 0 else -np.inf
    last = ends[1] if ends[1] < size else np.inf
    within: BoolArray = (places >= first) & (places < last)
    return within


def _most_detected(pulls: Float32Image, threshold: float) -> int:
    """No fewer than the pixels that sep's filter, (1, 2, 1) along both axes, leaves above `threshold`."""
    count, least = STACK_MARGIN, np.float32(16 * 0.95 * threshold)
    for start in range(0, pulls.shape[0], _ROWS):
        low, high = max(start - 1, 0), min(start + _ROWS + 1, pulls.shape[0])
        band = np.pad(pulls[low:high], ((low == start, high < start + _ROWS + 1), (1, 1)))
        for axis in (0, 1):
            for _ in range(2):
                band = band[1:] + band[:-1] if axis == 0 else band[:, 1:] + band[:, :-1]
        count += int(np.count_nonzero(band > least))
    return min(count, pulls.size + STACK_MARGIN)


def _measured(
    rows: NDArray[np.void],
    residual: Float32Image,
    bits: Uint32Image,
    background: Background,
    threshold_sigma: float,
) -> Stars:
    fit = adaptive_moments(residual, rows["x"], rows["y"], np.sqrt(rows["a"] * rows["b"]))
    fwhm = fit.fwhm_px
    columns = np.clip(np.rint(fit.x).astype(int), 0, residual.shape[1] - 1)
    lines = np.clip(np.rint(fit.y).astype(int), 0, residual.shape[0] - 1)
    rms = background.rms[lines, columns]
    snr = fit.flux / (rms * np.sqrt(4 * np.pi) * np.maximum(fwhm, 0.5) / 2.3548)
    # noise at the threshold has no shape and loses significance under a matched weight; saturated stars do
    # not
    kept = np.where(fit.converged, snr > threshold_sigma, rows["flux"] > 20 * rms)
    usable = fit.converged & (snr > 0)
    flux = np.where(fit.converged, fit.flux, rows["flux"])
    isolated = _isolated(fit.x, fit.y, flux, fwhm)
    untouched = _untouched(bits, fit.x, fit.y, fwhm)
    isolated &= ~is_sharper(residual, columns.astype(float), lines.astype(float), NARROWEST_PX)
    candidate = (
        usable
        & isolated
        & untouched
        & (fwhm > NARROWEST_PX)
        & ((rows["flag"] & sep.OBJ_TRUNC) == 0)
        & ~_spoilt_by_blends(rows)
    )
    clean = like_stars(fwhm, fit.ellipticity, snr, candidate, (fit.x, fit.y))
    fwhm = fwhm * _half_maximum_ratio(residual, fit.x[clean], fit.y[clean], fit.flux[clean], fwhm[clean])
    stars = Stars(
        fit.x, fit.y, flux, fwhm, fit.ellipticity, rows["peak"].astype(float), snr.astype(float), clean
    )
    order = np.argsort(-flux, kind="stable")
    return stars.only(order[kept[order]])


def _half_maximum_ratio(
    residual: Float32Image, x: Float64Array, y: Float64Array, flux: Float64Array, fwhm: Float64Array
) -> float:
    """FWHM of the clean stars' common profile over that of their Gaussians: 0.89 for a Moffat of beta 3.

    A Moffat profile is fitted to the pixels of the brightest stars, divided by their fluxes. 1 if that fails.
    """
    if x.size < 3:
        return 1.0
    top = np.argsort(-flux)[:150]
    typical = float(np.median(fwhm))
    reach = int(np.ceil(1.6 * typical))
    steps = np.arange(-reach, reach + 1)
    columns = np.rint(x[top]).astype(int)[:, None, None] + steps[None, None, :]
    rows = np.rint(y[top]).astype(int)[:, None, None] + steps[None, :, None]
    ny, nx = residual.shape
    columns, rows = np.clip(columns, 0, nx - 1), np.clip(rows, 0, ny - 1)
    r2 = (columns - x[top, None, None]) ** 2 + (rows - y[top, None, None]) ** 2
    values = residual[rows, columns] / flux[top, None, None] * typical**2
    near = r2 < (1.6 * typical) ** 2
    some = slice(None, None, 1 + np.count_nonzero(near) // ENOUGH_PROFILE)
    r2, values = r2[near][some], values[near][some]

    def misfit(p: Float64Array) -> Float64Array:
        wrong: Float64Array = p[0] * (1 + r2 / p[1] ** 2) ** -p[2] + p[3] - values
        return wrong

    def slopes(p: Float64Array) -> Float64Array:
        base = 1 + r2 / p[1] ** 2
        profile = base ** -p[2]
        wider = p[0] * p[2] * profile / base * 2 * r2 / p[1] ** 3
        return np.stack([profile, wider, -p[0] * profile * np.log(base), np.ones_like(r2)], axis=1)

    start = np.array([0.8, typical * 0.95, 3.0, 0.0])
    bounds = ([0.05, 0.1 * typical, 1.1, -0.05], [5.0, 10 * typical, 20.0, 0.05])
    fit = least_squares(misfit, start, slopes, bounds, loss="soft_l1", f_scale=0.05, max_nfev=60)
    width = 2 * fit.x[1] * np.sqrt(2 ** (1 / fit.x[2]) - 1)
    ratio = float(width / typical)
    return ratio if fit.success and 0.7 < ratio < 1.3 else 1.0


def _spoilt_by_blends(rows: NDArray[np.void]) -> BoolArray:
    """Sources of blends in which another one that touches them has `SPOILING_SHARE` of their light."""
    spoilt: BoolArray = (rows["flag"] & sep.OBJ_MERGED) != 0
    index = np.flatnonzero(spoilt)
    if not index.size:
        return spoilt
    reach, flux = np.sqrt(rows["npix"][index] / np.pi), rows["flux"][index]
    places = np.column_stack([rows["x"][index], rows["y"][index]])
    touching = cKDTree(places).query_ball_point(places, reach + TOUCHING * np.median(reach))
    most = [
        max((flux[other] for other in near if other != one), default=0.0) for one, near in enumerate(touching)
    ]
    spoilt[index] = np.array(most) >= SPOILING_SHARE * flux
    return spoilt


def _isolated(x: Float64Array, y: Float64Array, flux: Float64Array, fwhm: Float64Array) -> BoolArray:
    """No neighbour within 3 FWHM that has more than 3 % of the source's flux."""
    typical = float(np.nanmedian(fwhm)) if np.isfinite(fwhm).any() else 3.0
    alone = np.ones(x.size, bool)
    tree = cKDTree(np.column_stack([x, y]))
    for one, other in tree.query_pairs(3 * typical):
        alone[one] &= flux[other] < 0.03 * flux[one]
        alone[other] &= flux[one] < 0.03 * flux[other]
    return alone


def _untouched(bits: Uint32Image, x: Float64Array, y: Float64Array, fwhm: Float64Array) -> BoolArray:
    """No unusable pixel within 1.5 FWHM, and 3 FWHM of room to every edge."""
    ny, nx = bits.shape
    typical = float(np.nanmedian(fwhm)) if np.isfinite(fwhm).any() else 3.0
    room = int(np.ceil(3 * typical))
    inside: BoolArray = (x > room) & (y > room) & (x < nx - 1 - room) & (y < ny - 1 - room)
    bad = (bits & np.uint32(UNUSABLE)) != 0
    if not bad.any():
        return inside
    radius = max(2, int(np.ceil(1.5 * typical)))
    offsets = np.arange(-radius, radius + 1)
    lines = np.clip(np.rint(y).astype(int)[:, None, None] + offsets[None, :, None], 0, ny - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + offsets[None, None, :], 0, nx - 1)
    touched: BoolArray = bad[lines, columns].any(axis=(1, 2))
    return inside & ~touched


def _none() -> Stars:
    empty = np.empty(0)
    return Stars(empty, empty, empty, empty, empty, empty, empty, np.empty(0, bool))
