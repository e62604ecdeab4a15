"""Pairs of a sky that is not ours: GalSim draws the light, every setting at random.

Owns what our own simulator does not have: turbulence and optics whose aberrations grow over the field, with
struts before the mirror, charge that diffuses, colours (of stars that the air displaces and filters see
differently), Sérsic galaxies with bulges. Never judges what is delivered of it. GalSim comes with the extra
`dev`.
"""

import io
from dataclasses import dataclass
from typing import Any

import galsim
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import fft, interpolate, ndimage

from astrid_workers.sky.detector import Detector, expose
from astrid_workers.sky.grid import Grid, tan_wcs
from astrid_workers.sky.make_sky import TRUTH_DTYPE

Floats = NDArray[np.float64]

#: Samples per pixel of a drawn profile, its reach, and that of what galaxies are convolved with, pixels.
OVERSAMPLED, REACH_PX, GALAXY_REACH_PX = 4, 60, 40
#: Places along each side of the frame at which a profile is drawn, and the light whose middle is its own.
NODES, MIDDLE_PX = 3, 8.0
#: Stars are drawn as far as they have this share of the sky's noise, by a profile that falls as turbulence's.
FAINTEST_SIGMA = 0.02
PIXEL_SCALE_ARCSEC, SATURATION_ADU = 0.4, 60_000.0
#: Distance of transients from the frame's edge, pixels.
BORDER_PX = 30.0
_SPLINE = interpolate.BSpline.basis_element(np.arange(-3, 4), extrapolate=False)


@dataclass(frozen=True, slots=True, eq=False)
class Telescope:
    """The profiles of one frame: images of unit flux at nodes over it, and their spline coefficients."""

    images: Floats  # (NODES, NODES, side, side)
    coefficients: Floats
    shape: tuple[int, int]

    @classmethod
    def draw(cls, shape: tuple[int, int], optics: dict[str, Any]) -> "Telescope":
        """Turbulence, optics, diffusion and pixel at each node."""
        places = np.linspace(-1, 1, NODES)
        side = 2 * OVERSAMPLED * REACH_PX + 1
        images = np.empty((NODES, NODES, side, side))
        for row in range(NODES):
            for column in range(NODES):
                profile = _profile(optics, places[column], places[row])
                drawn = _drawn(profile.shift(-_middle(_drawn(profile, side))), side)
                images[row, column] = drawn * (OVERSAMPLED**2 / drawn.sum())
        coefficients = np.stack([[ndimage.spline_filter(each, 5) for each in row] for row in images])
        return cls(images, coefficients, shape)

    def stamp(self, x: float, y: float, half: int) -> Floats:
        """Unit flux at a place, on the pixels within `half` of the nearest one."""
        down, across = _spline_weights(half, round(y) - y), _spline_weights(half, round(x) - x)
        return np.asarray(down @ self._at(self.coefficients, x, y) @ across.T)

    def galaxy(self, light: galsim.GSObject, x: float, y: float) -> galsim.GSObject:
        """A galaxy at a place as this telescope sees it, its pixels included."""
        cut = OVERSAMPLED * (REACH_PX - GALAXY_REACH_PX)
        image = self._at(self.images, x, y)[cut:-cut, cut:-cut] / OVERSAMPLED**2
        seen = galsim.InterpolatedImage(galsim.ImageD(np.ascontiguousarray(image), scale=1 / OVERSAMPLED))
        return galsim.Convolve(light, seen)

    def _at(self, nodes: Floats, x: float, y: float) -> Floats:
        down, across = (
            _between_nodes(2 * place / (side - 1) - 1) for place, side in zip((y, x), self.shape, strict=True)
        )
        flat = np.outer(down, across).ravel() @ nodes.reshape(NODES * NODES, -1)
        return np.asarray(flat.reshape(nodes.shape[2:]))


def _between_nodes(place: float) -> Floats:
    """Weights of the nodes at -1, 0 and 1 of a parabola through them: light goes with aberrations squared."""
    place = float(np.clip(place, -1, 1))
    return np.array([place * (place - 1) / 2, 1 - place**2, place * (place + 1) / 2])


def _drawn(profile: galsim.GSObject, side: int) -> Floats:
    image = profile.drawImage(nx=side, ny=side, scale=1 / OVERSAMPLED, method="no_pixel")
    return np.asarray(image.array, float)


def _middle(image: Floats) -> galsim.PositionD:
    """The middle of the light within a few widths, pixels from the centre: where a source is said to stand.

    A comet's tail pulls it aside, and differently over the field.
    """
    axis = (np.arange(len(image)) - len(image) // 2) / OVERSAMPLED
    light = np.where(np.hypot(axis[:, None], axis) < MIDDLE_PX, image, 0.0)
    return galsim.PositionD(float(light.sum(axis=0) @ axis), float(light.sum(axis=1) @ axis)) / light.sum()


def _spline_weights(half: int, offset: float) -> Floats:
    """Of each sample at the middles of pixels, `offset` pixels off the profile's own: `(pixels, samples)`."""
    pixels = (np.arange(-half, half + 1) + offset) * OVERSAMPLED
    samples = np.arange(-OVERSAMPLED * REACH_PX, OVERSAMPLED * REACH_PX + 1)
    return np.nan_to_num(_SPLINE(pixels[:, None] - samples[None, :]))


def _profile(optics: dict[str, Any], u: float, v: float) -> galsim.GSObject:
    """At a place from -1 to 1 along either side: aberrations grow with the distance from the axis."""
    lens = galsim.OpticalPSF(
        lam_over_diam=optics["diffraction_px"],
        obscuration=optics["obscuration"],
        nstruts=optics["struts"],
        strut_thick=0.03,
        strut_angle=optics["strut_angle_deg"] * galsim.degrees,
        defocus=optics["defocus"] + u * optics["tilt_u"] + v * optics["tilt_v"],
        astig1=optics["astigmatism_on_axis"] + optics["astigmatism"] * (u**2 - v**2),
        astig2=optics["astigmatism"] * 2 * u * v,
        coma1=optics["coma"] * v,
        coma2=optics["coma"] * u,
        trefoil1=optics["trefoil"],
        spher=optics["spherical"],
    )
    air = galsim.Kolmogorov(fwhm=optics["seeing_px"]).shear(g1=optics["guiding"], g2=0.0)
    return galsim.Convolve(air, lens, galsim.Gaussian(sigma=optics["diffusion_px"]), galsim.Pixel(1.0))


# ---------------------------------------------------------------------------------------- settings


def draw_settings(seed: int, size: int) -> dict[str, Any]:
    """Everything that `draw_pair` is told; the same for the same seed."""
    rng = np.random.default_rng([seed, 78])
    mpix = size**2 / 1e6

    def by_factors(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    seeing = by_factors(1.3, 5.0)
    sky_e = by_factors(30.0, 4000.0)
    return {
        "seed": seed,
        "size": size,
        "science": _draw_optics(rng, seeing),
        "reference": _draw_optics(rng, float(np.clip(seeing * by_factors(0.55, 1.8), 1.2, 6.0))),
        "n_stars": round(by_factors(60.0, 3000.0) * mpix),
        "slope": float(rng.uniform(0.35, 0.9)),
        "star_flux_e": (by_factors(3e2, 2e3), by_factors(5e4, 2e6)),
        "n_galaxies": round(by_factors(20.0, 250.0) * mpix),
        "n_transients": round(120 * mpix),
        "sky_e": sky_e,
        "gradient_e": sky_e * float(rng.uniform(0, 0.2)),
        "read_noise_e": float(rng.uniform(2.0, 12.0)),
        "gain_e_per_adu": by_factors(0.6, 4.0),
        "transparency": float(rng.uniform(0.4, 1.1)),
        "depth": by_factors(0.5, 6.0),
        "n_cosmic_rays": int(rng.integers(0, 120)),
        "displaced_px": float(rng.uniform(0, 0.03)),
        "colour_rms": float(rng.uniform(0, 0.02)),
        "rotation_deg": float(rng.normal(0, 0.4)),
        "scale": float(rng.uniform(0.98, 1.02)),
        "offset_px": tuple(float(each) for each in rng.uniform(-30, 30, 2)),
        "wcs_error_px": tuple(float(each) for each in rng.normal(0, 1.0, 2)),
    }


def _draw_optics(rng: np.random.Generator, seeing_px: float) -> dict[str, Any]:
    """A telescope whose aberrations are those of its night; in waves, rms."""
    aberrations = {
        name: float(rng.normal(0, rms))
        for name, rms in (
            ("defocus", 0.1), ("tilt_u", 0.05), ("tilt_v", 0.05), ("astigmatism", 0.06),
            ("astigmatism_on_axis", 0.06), ("coma", 0.06), ("trefoil", 0.04), ("spherical", 0.04),
        )
    }  # fmt: skip
    return aberrations | {
        "seeing_px": seeing_px,
        "diffraction_px": float(rng.uniform(0.15, 0.6)),
        "obscuration": float(rng.uniform(0.0, 0.45)),
        "struts": int(rng.choice([0, 3, 4])),
        "strut_angle_deg": float(rng.uniform(0, 90)),
        "guiding": float(rng.uniform(-0.06, 0.06)),
        "diffusion_px": float(rng.uniform(0.2, 0.45)),
    }


# ---------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True, slots=True, eq=False)
class GalsimSky:
    """Both frames as files, and the truth by the names of `astrid_workers.sky.Sky`."""

    files: tuple[bytes, ...]
    truth: NDArray[Any]
    flux_scale: float
    grid: Grid
    star_x: Floats
    star_y: Floats
    star_flux_e: Floats
    cosmic_rays_science: NDArray[np.bool_]
    cosmic_rays_reference: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Stars:
    """Places and fluxes in the science frame; `in_reference` is what the reference's filter sees of each."""

    x: Floats
    y: Floats
    flux_e: Floats
    in_reference: Floats
    #: By how much the air displaces each in the science frame, pixels.
    displaced: Floats


def draw_pair(settings: dict[str, Any]) -> GalsimSky:
    """Draw both frames; the same settings give the same files."""
    rng = np.random.default_rng(settings["seed"])
    shape = (settings["size"], settings["size"])
    grid = Grid.about(
        shape,
        offset_px=settings["offset_px"],
        rotation_deg=settings["rotation_deg"],
        scale=settings["scale"],
        out_shape=None,
    )
    scale = settings["transparency"] / settings["depth"]
    telescopes = [Telescope.draw(shape, settings[name]) for name in ("science", "reference")]
    saturation_e = SATURATION_ADU * settings["gain_e_per_adu"]
    detectors = [
        Detector(settings["sky_e"], settings["gradient_e"], settings["read_noise_e"], saturation_e),
        Detector(settings["sky_e"] * settings["depth"], 0.0, settings["read_noise_e"], saturation_e),
    ]
    stars, galaxies = _draw_stars(rng, settings), _draw_galaxies(rng, settings)
    light = [np.zeros(shape), np.zeros(shape)]
    _paint_stars(light[0], telescopes[0], stars.x + stars.displaced, stars.y, stars.flux_e, detectors[0])
    _paint_stars(
        light[1],
        telescopes[1],
        *grid.to_reference(stars.x, stars.y),
        stars.in_reference / scale,
        detectors[1],
    )
    for galaxy, x, y in galaxies:
        x_r, y_r = (float(each) for each in grid.to_reference(np.array(x), np.array(y)))
        _paint_galaxy(light[0], telescopes[0], galaxy, x, y)
        # pixels of the reference are smaller or larger, and so is what is seen in it
        turned = galaxy.rotate(settings["rotation_deg"] * galsim.degrees).dilate(settings["scale"])
        _paint_galaxy(light[1], telescopes[1], turned / scale, x_r, y_r)
    truth = _draw_transients(rng, settings, galaxies)
    truth["flux_e"] = truth["snr_local"] / _snr_of_one(truth, light, telescopes, detectors, grid, scale)
    new, gone = truth[truth["sign"] > 0], truth[truth["sign"] < 0]
    _paint_stars(light[0], telescopes[0], new["x"], new["y"], new["flux_e"], detectors[0])
    _paint_stars(
        light[1],
        telescopes[1],
        *grid.to_reference(gone["x"], gone["y"]),
        gone["flux_e"] / scale,
        detectors[1],
    )
    exposed = [
        expose(rng, each, detector, settings["n_cosmic_rays"], 0, 0)
        for each, detector in zip(light, detectors, strict=True)
    ]
    wcs = tan_wcs(shape, 150.0, 2.0, PIXEL_SCALE_ARCSEC)
    headers = (wcs, grid.reference_wcs(wcs, settings["wcs_error_px"]))
    return GalsimSky(
        files=tuple(_as_file(e.image, w, settings) for e, w in zip(exposed, headers, strict=True)),
        truth=truth,
        flux_scale=scale,
        grid=grid,
        star_x=stars.x,
        star_y=stars.y,
        star_flux_e=stars.flux_e,
        cosmic_rays_science=exposed[0].cosmic_rays,
        cosmic_rays_reference=exposed[1].cosmic_rays,
    )


def _paint_stars(
    canvas: Floats, telescope: Telescope, x: Floats, y: Floats, flux_e: Floats, detector: Detector
) -> None:
    """Add point sources, each as far as it matters; what lies outside the canvas is lost."""
    faintest = FAINTEST_SIGMA * np.sqrt(detector.variance)
    # a profile of turbulence falls with the power 11/3; at 10 px it has about 1e-4 of the light
    reach = 10 * (1e-4 * np.maximum(flux_e, 1.0) / faintest) ** (3 / 11)
    halves = np.clip(np.ceil(reach), 14, REACH_PX - 1).astype(int)
    for place_x, place_y, flux, half in zip(x, y, flux_e, halves, strict=True):
        top, left = round(place_y) - int(half), round(place_x) - int(half)
        rows = slice(max(top, 0), min(top + 2 * int(half) + 1, canvas.shape[0]))
        columns = slice(max(left, 0), min(left + 2 * int(half) + 1, canvas.shape[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            stamp = telescope.stamp(float(place_x), float(place_y), int(half))
            part = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            canvas[rows, columns] += flux * part


def _paint_galaxy(canvas: Floats, telescope: Telescope, galaxy: galsim.GSObject, x: float, y: float) -> None:
    """Add an extended source, its pixels included; what lies outside the canvas is lost."""
    image = galsim.ImageD(canvas, xmin=0, ymin=0, scale=1.0)
    half = REACH_PX
    bounds = galsim.BoundsI(round(x) - half, round(x) + half, round(y) - half, round(y) + half) & image.bounds
    if bounds.isDefined():
        seen = telescope.galaxy(galaxy, x, y)
        seen.drawImage(
            image[bounds], method="no_pixel", add_to_image=True, center=galsim.PositionD(float(x), float(y))
        )


def _draw_stars(rng: np.random.Generator, settings: dict[str, Any]) -> _Stars:
    """Over the frame and a margin; numbers fall as a power of the flux."""
    side, margin = settings["size"], 20.0
    count = round(settings["n_stars"] * ((side + 2 * margin) / side) ** 2)
    low, high = (flux ** -settings["slope"] for flux in settings["star_flux_e"])
    flux = (low + rng.uniform(size=count) * (high - low)) ** (-1 / settings["slope"])
    colour = rng.normal(0, 1, count)
    return _Stars(
        rng.uniform(-margin, side + margin, count),
        rng.uniform(-margin, side + margin, count),
        flux,
        flux * (1 + settings["colour_rms"] * colour),
        settings["displaced_px"] * colour,
    )


def _draw_galaxies(
    rng: np.random.Generator, settings: dict[str, Any]
) -> list[tuple[galsim.GSObject, float, float]]:
    """Discs with bulges, and their places."""
    drawn = []
    for _ in range(settings["n_galaxies"]):
        flux, radius = float(np.exp(rng.uniform(np.log(1e3), np.log(2e5)))), float(rng.uniform(1.2, 6.0))
        bulge = float(rng.uniform(0, 0.6))
        disc = galsim.Exponential(half_light_radius=radius, flux=flux * (1 - bulge))
        half_light, index = max(0.5, radius / 2), float(rng.uniform(1.5, 3.5))
        core = galsim.Sersic(index, half_light_radius=half_light, flux=flux * bulge, trunc=10 * half_light)
        ratio, angle = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0, 180))
        galaxy = (disc.shear(q=ratio, beta=angle * galsim.degrees)) + core
        x, y = (float(each) for each in rng.uniform(0, settings["size"] - 1, 2))
        drawn.append((galaxy, x, y))
    return drawn


def _draw_transients(
    rng: np.random.Generator,
    settings: dict[str, Any],
    galaxies: list[tuple[galsim.GSObject, float, float]],
) -> NDArray[Any]:
    """Places on a jittered grid, a half of them moved onto galaxies, and the S/N that each is to have."""
    count, side = settings["n_transients"], settings["size"]
    truth = np.zeros(count, TRUTH_DTYPE)
    columns = int(np.ceil(np.sqrt(count)))
    cell = rng.permutation(columns**2)[:count]
    step = (side - 2 * BORDER_PX) / columns
    truth["x"] = BORDER_PX + (cell % columns + rng.uniform(0.15, 0.85, count)) * step
    truth["y"] = BORDER_PX + (cell // columns + rng.uniform(0.15, 0.85, count)) * step
    truth["sign"] = np.where(rng.uniform(size=count) < 0.3, -1, 1)
    truth["snr_local"] = np.exp(rng.uniform(np.log(2.0), np.log(40.0), count))
    inside = [(x, y) for _, x, y in galaxies if min(x, y) > BORDER_PX and max(x, y) < side - BORDER_PX]
    hosted = rng.permutation(count)[: min(count // 2, len(inside))]
    for row, (x, y) in zip(hosted, rng.permutation(np.array(inside).reshape(-1, 2)), strict=False):
        truth["x"][row], truth["y"][row] = x + rng.normal(0, 1), y + rng.normal(0, 1)
        truth["on_host"][row] = True
    return truth


def _snr_of_one(
    truth: NDArray[Any],
    light: list[Floats],
    telescopes: list[Telescope],
    detectors: list[Detector],
    grid: Grid,
    scale: float,
) -> Floats:
    """S/N that a matched filter gives one electron at each place, by the formula of `astrid_workers.sky`."""
    half = 40
    places = ((truth["x"], truth["y"]), grid.to_reference(truth["x"], truth["y"]))
    found = np.empty(len(truth))
    for row in range(len(truth)):
        powers, variances = [], []
        for (x, y), telescope, canvas, detector in zip(places, telescopes, light, detectors, strict=True):
            stamp = telescope.stamp(round(float(x[row])), round(float(y[row])), half)
            powers.append(np.abs(fft.fft2(stamp)) ** 2)
            rows = np.clip(round(float(y[row])), 0, canvas.shape[0] - 1)
            columns = np.clip(round(float(x[row])), 0, canvas.shape[1] - 1)
            variances.append(detector.variance + canvas[rows, columns])
        noise = np.maximum(scale**2 * variances[1] * powers[0] + variances[0] * powers[1], 1e-12)
        found[row] = np.sqrt(np.mean(powers[0] * powers[1] / noise))
    return found


def _as_file(image: NDArray[np.float32], wcs: WCS, settings: dict[str, Any]) -> bytes:
    """Integers in ADU, with the cards that an observer's file has."""
    gain = settings["gain_e_per_adu"]
    header = wcs.to_header()
    header["GAIN"], header["RDNOISE"], header["SATURATE"] = gain, settings["read_noise_e"], SATURATION_ADU
    header["EXPTIME"], header["FILTER"], header["DATE-OBS"] = 60.0, "r", "2026-03-14T02:30:00"
    pixels = np.clip(np.rint(image / gain), 0, 65_535).astype(np.uint16)
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(buffer)
    return buffer.getvalue()
