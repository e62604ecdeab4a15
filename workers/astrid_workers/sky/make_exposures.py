"""Several exposures of one simulated field, as a reference is stacked from.

Owns how the exposures differ (place, seeing, transparency, rays, a satellite, a passing source); what the
field holds is `make_sky`'s. Never draws from anything but its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.sky.detector import Detector, expose
from astrid_workers.sky.grid import Grid, shift_field
from astrid_workers.sky.light import Galaxies, Points, PsfModel, render
from astrid_workers.sky.make_sky import Sky, make_sky

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """How one exposure is taken of the field."""

    #: Where a source stands in it minus where it stands in the field, pixels at the centre.
    offset_px: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    fwhm_px: float = 3.0
    transparency: float = 1.0
    sky_e: float = 400.0
    read_noise_e: float = 5.0
    n_cosmic_rays: int = 0
    #: Electrons per pixel along a satellite's track of 3 px through the frame; 0: none.
    satellite_e: float = 0.0
    #: Electrons of a source in the middle of the field that is there in this exposure only; 0: none.
    passing_e: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Exposures:
    """Frames of one field in electrons, and what is true of them."""

    frames: tuple[Frame, ...]
    grids: tuple[Grid, ...]
    #: True where a ray or the satellite struck, per frame.
    spoiled: tuple[NDArray[np.bool_], ...]
    #: Of the stars: places are pixels of an exposure without offset, fluxes those at transparency 1.
    field: Sky


def make_exposures(
    settings: Sequence[ExposureSettings],
    *,
    seed: int,
    shape: tuple[int, int] = (384, 384),
    n_stars: int = 120,
    star_flux_e: tuple[float, float] = (2e3, 2e5),
    exposure_s: float = 60.0,
) -> Exposures:
    """Draw one frame per entry of `settings`, all with the WCS of the place that they truly have."""
    field = make_sky(seed=seed, shape=shape, n_stars=n_stars, n_transients=0, star_flux_e=star_flux_e)
    frames, grids, spoiled = [], [], []
    for number, one in enumerate(settings):
        rng = np.random.default_rng([seed, number])
        grid = Grid.about(
            shape, offset_px=one.offset_px, rotation_deg=one.rotation_deg, scale=1.0, out_shape=shape
        )
        frame, struck = _exposure(rng, field, one, grid, f"exposure-{seed}-{number}")
        frames.append(replace(frame, facts=replace(frame.facts, exposure_s=exposure_s)))
        grids.append(grid)
        spoiled.append(struck)
    return Exposures(tuple(frames), tuple(grids), tuple(spoiled), field)


def _exposure(
    rng: np.random.Generator, field: Sky, one: ExposureSettings, grid: Grid, name: str
) -> tuple[Frame, NDArray[np.bool_]]:
    shape = field.science.shape
    psf = PsfModel(one.fwhm_px)
    middle = np.array([shape[1] / 2]), np.array([shape[0] / 2])
    points = Points(field.star_x, field.star_y, field.star_flux_e)
    points = points.plus(Points(*middle, np.array([one.passing_e])))
    seen = points.moved(grid, shift_field(rng, shape, 0.0)).scaled(one.transparency)
    none = np.zeros(0)
    light = render(shape, seen, Galaxies(none, none, none, none, none, none), psf)
    track = satellite_track(shape) & (one.satellite_e > 0)
    light[track] += one.satellite_e
    detector = Detector(one.sky_e, 0.0, one.read_noise_e, 90_000.0)
    exposed = expose(rng, light, detector, one.n_cosmic_rays, 0, 0)
    assert field.science.wcs is not None
    frame = Frame(
        exposed.image,
        exposed.variance,
        exposed.mask & np.uint32(MaskBit.SATURATED),
        grid.reference_wcs(field.science.wcs),
        "electron",
        replace(field.science.facts, read_noise_e=one.read_noise_e),
        (),
        name,
    )
    return frame, exposed.cosmic_rays | track


def satellite_track(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels within 1.5 px of a line from the lower left part of the frame to its upper right."""
    y, x = np.indices(shape)
    slope = 0.7 * shape[0] / shape[1]
    distance: NDArray[np.floating] = np.abs(y - slope * x - 0.1 * shape[0]) / np.hypot(1, slope)
    return distance <= 1.5
