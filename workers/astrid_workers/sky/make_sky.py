"""A simulated patch of sky: a science and a reference frame of it, with the truth.

Owns what the two frames contain and how the detector spoils them; every defect is switched by its own
argument and is off unless asked for. Never reads a file, and never draws from anything but the seed that it
is given.

Stars, hosts and transients share one exact point spread function per frame (stars: the profile sampled at its
sub-pixel place; galaxies: their light convolved with the same profile), so that a perfect subtraction leaves
noise only.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from astrid_workers.celestial import sky_of
from astrid_workers.frame import Float32Image, Frame, HeaderFacts
from astrid_workers.mask import MaskBit
from astrid_workers.sky.blemishes import NONE, Blemished, Blemishes, blemish
from astrid_workers.sky.detector import Detector, Exposed, expose
from astrid_workers.sky.grid import Bends, Grid, shift_field, tan_wcs
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render
from astrid_workers.sky.limit import snr_limit

Float64Array = NDArray[np.float64]

#: One row per injected transient.
TRUTH_DTYPE = np.dtype(
    [
        ("x", "f8"),  # 0-based pixel of the science frame
        ("y", "f8"),
        ("ra_deg", "f8"),  # NaN without a WCS
        ("dec_deg", "f8"),
        ("flux_e", "f8"),  # positive, electrons of the science frame
        ("sign", "i4"),  # +1: in the science frame only; -1: in the reference only
        ("snr_expected", "f8"),  # what a matched filter could reach on blank sky
        ("snr_local", "f8"),  # the same with the photons of hosts and neighbours at its place
        ("on_host", "?"),
    ]
)

#: Names of further streams of chance, so that what is switched on changes no other draw.
_COLOURS, _MOVING = 11, 12
#: Exponential discs as the sum of three Gaussians: (fraction of the light, sigma / scale length).
_DISC = ((0.22, 0.55), (0.46, 1.25), (0.32, 2.35))


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """A pair of frames in electrons, with everything that is true about them.

    `science = flux_scale × reference` holds for every constant source. `reference` lies on its own grid: a
    source at `x, y` of the science frame stands at `grid.to_reference(x, y)` of the reference.
    """

    science: Frame
    reference: Frame
    #: Transients, `TRUTH_DTYPE`.
    truth: NDArray[Any]
    flux_scale: float
    grid: Grid
    psf_science: PsfModel
    psf_reference: PsfModel
    #: Constant stars in science pixels: x, y, flux_e (science electrons).
    star_x: Float64Array
    star_y: Float64Array
    star_flux_e: Float64Array
    #: Colour of each, in standard deviations of all.
    star_colour: Float64Array
    #: Constant galaxies (sums of Gaussians) in science pixels and electrons, before the profile.
    galaxies: Galaxies
    #: By how much sources of the reference stand off from where `grid` puts them.
    bends: Bends
    #: Where cosmic rays struck; the frames' masks do not know of them.
    cosmic_rays_science: NDArray[np.bool_]
    cosmic_rays_reference: NDArray[np.bool_]
    #: Expected sky of each frame without sources, electrons per pixel.
    background_science: Float32Image
    background_reference: Float32Image
    #: What `blemishes` did to the science frame.
    blemished: Blemished


def make_sky(
    *,
    seed: int,
    shape: tuple[int, int] = (512, 512),
    n_stars: int = 200,
    n_transients: int = 20,
    fwhm_science_px: float = 3.2,
    fwhm_reference_px: float = 2.6,
    moffat_beta: float = 3.0,
    ellipticity_science: float = 0.0,
    ellipticity_reference: float = 0.0,
    psf_gradient: float = 0.0,
    transparency: float = 1.0,
    reference_depth: float = 1.0,
    gain: float = 1.5,
    read_noise_e: float = 5.0,
    sky_e: float = 400.0,
    sky_reference_e: float | None = None,
    saturation_e: float = 90_000.0,
    exposure_s: float = 60.0,
    filter_name: str = "r",
    pixel_scale_arcsec: float = 0.5,
    ra_deg: float = 150.1,
    dec_deg: float = 2.2,
    with_wcs: bool = True,
    star_flux_e: tuple[float, float] = (2e3, 2e5),
    transient_snr: tuple[float, float] = (5.0, 50.0),
    negative_fraction: float = 0.0,
    n_galaxies: int = 0,
    galaxy_sigma_px: tuple[float, float] = (0.8, 3.0),
    host_fraction: float = 0.5,
    offset_px: tuple[float, float] = (0.0, 0.0),
    rotation_deg: float = 0.0,
    scale: float = 1.0,
    reference_shape: tuple[int, int] | None = None,
    shift_field_px: float = 0.0,
    wcs_error_px: tuple[float, float] = (0.0, 0.0),
    n_saturated: int = 0,
    n_cosmic_rays: int = 0,
    n_bad_columns: int = 0,
    nan_block_px: int = 0,
    gradient_e: float = 0.0,
    colour_gain: float = 0.0,
    refraction_px: float = 0.0,
    n_moving: int = 0,
    motion_px: tuple[float, float] = (3.0, 20.0),
    blemishes: Blemishes = NONE,
) -> Sky:
    """Draw one pair of frames; the same arguments give the same pixels.

    The reference is turned about the centre of the frame by `rotation_deg`, scaled and shifted by `offset_px`
    (where a source stands in the reference minus where it stands in the science frame, at the centre).
    `transparency` dims the science frame, `reference_depth` lengthens the reference's exposure:
    `flux_scale = transparency / reference_depth`. `sky_e` is per pixel and exposure; `gradient_e` is what is
    added to the science sky from one side to the other. `psf_gradient` widens the science profile by that
    fraction from the left edge to the right. `wcs_error_px` makes the reference's header lie by that much.
    The science frame's band differs from the reference's by `colour_gain`, the scatter of what it makes of
    stars' fluxes, and the air refracts their colours apart along y by `refraction_px` (rms). `n_moving`
    objects, as bright as transients, stand `motion_px` away in the reference: a transient of each sign.
    `blemishes` spoils the science frame further. Galaxies have a sigma of at least 0.8 px before the profile,
    so that they do not alias.
    """
    rng = np.random.default_rng(seed)
    grid = Grid.about(
        shape, offset_px=offset_px, rotation_deg=rotation_deg, scale=scale, out_shape=reference_shape
    )
    flux_scale = transparency / reference_depth
    psf_n = PsfModel(fwhm_science_px, moffat_beta, ellipticity_science, 30.0, psf_gradient, shape[1])
    psf_r = PsfModel(fwhm_reference_px, moffat_beta, ellipticity_reference, 100.0, 0.0, grid.out_shape[1])
    sky_n = Detector(sky_e, gradient_e, read_noise_e, saturation_e)
    sky_r = Detector(
        (sky_e if sky_reference_e is None else sky_reference_e) * reference_depth,
        0.0,
        read_noise_e * float(np.sqrt(reference_depth)),
        saturation_e * max(1.0, reference_depth),
    )

    stars = _draw_stars(rng, shape, n_stars, star_flux_e, n_saturated, saturation_e, fwhm_science_px)
    galaxies = _draw_galaxies(rng, shape, n_galaxies, galaxy_sigma_px)
    truth = _draw_transients(rng, shape, n_transients, galaxies, host_fraction, negative_fraction)
    per_electron = snr_limit(1.0, psf_n, psf_r, sky_n.variance, sky_r.variance, flux_scale)
    truth["snr_expected"] = _log_uniform(rng, transient_snr, n_transients)
    truth["flux_e"] = truth["snr_expected"] / per_electron

    truth = np.concatenate(
        [truth, _draw_moving(seed, shape, n_moving, motion_px, transient_snr, float(per_electron))]
    )
    bends = shift_field(rng, shape, shift_field_px)
    clips_e = saturation_e / psf_n.peak
    blemished = blemish(blemishes, seed, shape, stars, clips_e)
    colour = np.random.default_rng([seed, _COLOURS]).normal(0, 1, stars.x.size)
    in_band = (stars.flux + blemished.change_e) * np.maximum(1 + colour_gain * colour, 0)
    varied = Points(stars.x, stars.y + refraction_px * colour, in_band)
    passing = varied.plus(_of_sign(truth, 1, 1.0)).plus(blemished.glints.light())
    light_n = render(shape, passing, galaxies, psf_n)
    seen_r = stars.plus(_of_sign(truth, -1, 1.0)).moved(grid, bends).scaled(1.0 / flux_scale)
    light_r = render(grid.out_shape, seen_r, galaxies.moved(grid, bends).scaled(1.0 / flux_scale), psf_r)
    truth["snr_local"] = _snr_local(truth, light_n, light_r, grid, (psf_n, psf_r), (sky_n, sky_r), flux_scale)

    rays = n_cosmic_rays * grid.out_shape[0] * grid.out_shape[1] // (shape[0] * shape[1])
    exposed_n = expose(
        rng,
        light_n + blemished.stray_light + blemishes.satellite_e * blemished.satellites,
        sky_n,
        n_cosmic_rays,
        n_bad_columns,
        nan_block_px,
        pattern=blemished.pattern,
        hot_e=np.where(blemished.hot_pixels, blemishes.hot_pixel_e, 0.0),
        bleeds=blemishes.bleeds,
    )
    exposed_r = expose(rng, light_r, sky_r, rays, 0, 0)
    wcs_n = tan_wcs(shape, ra_deg, dec_deg, pixel_scale_arcsec) if with_wcs else None
    wcs_r = grid.reference_wcs(wcs_n, wcs_error_px) if wcs_n is not None else None
    truth["ra_deg"], truth["dec_deg"] = _sky_position(wcs_n, truth)
    facts = HeaderFacts(
        exposure_s=exposure_s,
        filter_name=filter_name,
        observed_at=datetime(2026, 3, 14, 2, 30, tzinfo=UTC),
        gain_e_per_adu=gain,
        read_noise_e=sky_n.read_noise_e,
        saturation=sky_n.saturation_e,
        pixel_scale_arcsec=pixel_scale_arcsec,
        object_name=f"simulated sky {seed}",
        telescope="astrid-sky",
        image_type="object",
    )
    facts_r = HeaderFacts(
        exposure_s=exposure_s * reference_depth,
        filter_name=filter_name,
        observed_at=datetime(2025, 11, 2, 1, 10, tzinfo=UTC),
        gain_e_per_adu=gain,
        read_noise_e=sky_r.read_noise_e,
        saturation=sky_r.saturation_e,
        pixel_scale_arcsec=pixel_scale_arcsec / scale,
        object_name=f"simulated sky {seed}",
        telescope="astrid-sky",
        image_type="object",
    )
    return Sky(
        science=_frame(exposed_n, wcs_n, facts, f"sky-{seed}-science"),
        reference=_frame(exposed_r, wcs_r, facts_r, f"sky-{seed}-reference"),
        truth=truth,
        flux_scale=flux_scale,
        grid=grid,
        psf_science=psf_n,
        psf_reference=psf_r,
        star_x=stars.x,
        star_y=stars.y,
        star_flux_e=stars.flux,
        star_colour=colour,
        galaxies=galaxies,
        bends=bends,
        cosmic_rays_science=exposed_n.cosmic_rays,
        cosmic_rays_reference=exposed_r.cosmic_rays,
        background_science=exposed_n.background,
        background_reference=exposed_r.background,
        blemished=blemished,
    )


def _frame(exposed: Exposed, wcs: WCS | None, facts: HeaderFacts, name: str) -> Frame:
    lost = ~np.isfinite(exposed.image)
    mask = exposed.mask | np.where(lost, np.uint32(MaskBit.NO_DATA), np.uint32(0))
    science = np.where(lost, np.float32(0), exposed.image)
    variance = np.where(lost, np.float32(np.inf), exposed.variance)
    return Frame(science, variance, mask.astype(np.uint32), wcs, "electron", facts, (), name)


def _draw_stars(
    rng: np.random.Generator,
    shape: tuple[int, int],
    n: int,
    flux_e: tuple[float, float],
    n_saturated: int,
    saturation_e: float,
    fwhm_px: float,
) -> Points:
    """Stars over the frame and a margin around it, numbers falling as flux^-0.6; the last ones saturate."""
    margin = 20.0
    area = (shape[0] + 2 * margin) * (shape[1] + 2 * margin) / (shape[0] * shape[1])
    count = round(n * area)
    u = rng.uniform(size=count)
    low, high = (f**-0.6 for f in flux_e)
    flux = (low + u * (high - low)) ** (-1 / 0.6)
    bright = saturation_e * fwhm_px**2 * rng.uniform(3, 30, n_saturated)
    total = count + n_saturated
    x = rng.uniform(-margin, shape[1] - 1 + margin, total)
    y = rng.uniform(-margin, shape[0] - 1 + margin, total)
    x[count:] = rng.uniform(0.05, 0.95, n_saturated) * shape[1]
    y[count:] = rng.uniform(0.05, 0.95, n_saturated) * shape[0]
    return Points(x, y, np.concatenate([flux, bright]))


def _draw_galaxies(
    rng: np.random.Generator, shape: tuple[int, int], n: int, sigma_px: tuple[float, float]
) -> Galaxies:
    """Discs as sums of three Gaussians each, with random shapes."""
    x, y = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    size = _log_uniform(rng, sigma_px, n)
    flux = _log_uniform(rng, (2e3, 1e5), n) * (size / sigma_px[0]) ** 0.5
    axis_ratio, angle = rng.uniform(0.4, 1.0, n), rng.uniform(0, np.pi, n)
    parts = [
        (x, y, flux * share, np.maximum(size * width, 0.8), np.maximum(size * width * axis_ratio, 0.8), angle)
        for share, width in _DISC
    ]
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Galaxies(*columns)


def _draw_transients(
    rng: np.random.Generator,
    shape: tuple[int, int],
    n: int,
    galaxies: Galaxies,
    host_fraction: float,
    negative_fraction: float,
) -> NDArray[Any]:
    """Places on a jittered grid inside the frame; a share of them moved to the cores of galaxies."""
    truth = np.zeros(n, TRUTH_DTYPE)
    border = min(30.0, min(shape) / 8)
    columns = max(1, int(np.ceil(np.sqrt(n * shape[1] / shape[0]))))
    rows = max(1, int(np.ceil(n / columns)))
    cell = rng.permutation(columns * rows)[:n]
    width, height = (shape[1] - 2 * border) / columns, (shape[0] - 2 * border) / rows
    truth["x"] = border + (cell % columns + rng.uniform(0.15, 0.85, n)) * width
    truth["y"] = border + (cell // columns + rng.uniform(0.15, 0.85, n)) * height
    truth["sign"] = np.where(rng.uniform(size=n) < negative_fraction, -1, 1)
    n_hosts = galaxies.x.size // len(_DISC)
    inside = np.flatnonzero(
        (np.abs(galaxies.x[:n_hosts] - (shape[1] - 1) / 2) < shape[1] / 2 - border)
        & (np.abs(galaxies.y[:n_hosts] - (shape[0] - 1) / 2) < shape[0] / 2 - border)
    )
    hosted = rng.permutation(n)[: min(inside.size, round(host_fraction * n))]
    hosts = rng.permutation(inside)[: hosted.size]
    truth["x"][hosted] = galaxies.x[hosts] + rng.normal(0, 1.0, hosted.size)
    truth["y"][hosted] = galaxies.y[hosts] + rng.normal(0, 1.0, hosted.size)
    truth["on_host"][hosted] = True
    return truth


def _draw_moving(
    seed: int,
    shape: tuple[int, int],
    n: int,
    motion_px: tuple[float, float],
    snr: tuple[float, float],
    per_electron: float,
) -> NDArray[Any]:
    """Rows of objects that moved between the frames, `2 n`: where each is in the science frame, and was."""
    rng = np.random.default_rng([seed, _MOVING])
    border = min(30.0, min(shape) / 8)
    truth = np.zeros(2 * n, TRUTH_DTYPE)
    x, y = (rng.uniform(border, side - 1 - border, n) for side in reversed(shape))
    far, angle = rng.uniform(*motion_px, n), rng.uniform(0, 2 * np.pi, n)
    truth["x"], truth["y"] = np.tile(x, 2), np.tile(y, 2)
    truth["x"][n:] += far * np.cos(angle)
    truth["y"][n:] += far * np.sin(angle)
    truth["sign"] = np.repeat([1, -1], n)
    truth["snr_expected"] = np.tile(_log_uniform(rng, snr, n), 2)
    truth["flux_e"] = truth["snr_expected"] / per_electron
    return truth


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float], n: int) -> Float64Array:
    low, high = limits
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def _of_sign(truth: NDArray[Any], sign: int, factor: float) -> Points:
    rows = truth[truth["sign"] == sign]
    return Points(rows["x"].copy(), rows["y"].copy(), rows["flux_e"] * factor)


def _snr_local(
    truth: NDArray[Any],
    light_n: Float64Array,
    light_r: Float64Array,
    grid: Grid,
    psfs: tuple[PsfModel, PsfModel],
    skies: tuple[Detector, Detector],
    flux_scale: float,
) -> Float64Array:
    """The limit at each transient's place: the constant light under it adds its photons to the noise."""
    own = truth["flux_e"] * psfs[0].peak * (truth["sign"] > 0)
    own_r = truth["flux_e"] / flux_scale * psfs[1].peak * (truth["sign"] < 0)
    x_r, y_r = grid.to_reference(truth["x"], truth["y"])
    extra_n = np.maximum(_sample(light_n, truth["x"], truth["y"]) - own, 0)
    extra_r = np.maximum(_sample(light_r, x_r, y_r) - own_r, 0)
    return snr_limit(
        truth["flux_e"], *psfs, skies[0].variance + extra_n, skies[1].variance + extra_r, flux_scale
    )


def _sample(image: Float64Array, x: Float64Array, y: Float64Array) -> Float64Array:
    rows = np.clip(np.rint(y).astype(int), 0, image.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int), 0, image.shape[1] - 1)
    sampled: Float64Array = image[rows, columns]
    return sampled


def _sky_position(wcs: WCS | None, truth: NDArray[Any]) -> tuple[Float64Array, Float64Array]:
    if wcs is None:
        return np.full(truth.size, np.nan), np.full(truth.size, np.nan)
    return sky_of(wcs, truth["x"], truth["y"])
