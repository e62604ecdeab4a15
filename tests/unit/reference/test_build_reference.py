"""References from several frames of a simulated field with truth."""

import tracemalloc
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from astrid_workers.differencing.build_reference import Reference, StackOptions, build_reference
from astrid_workers.differencing.measure import measure_frame
from astrid_workers.differencing.pair import run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import NothingToDo
from astrid_workers.frame import Frame
from astrid_workers.imaging.point_sources import fit_fluxes
from astrid_workers.mask import UNUSABLE, MaskBit
from astrid_workers.sky.make_exposures import Exposures, ExposureSettings, make_exposures

SHAPE = (320, 320)
EQUAL = tuple(ExposureSettings(offset) for offset in ((0, 0), (3.5, 1.3), (-2.4, 4.6), (5.1, -3.7)))
HARD = (
    ExposureSettings(),
    ExposureSettings((3.3, -2.1), fwhm_px=2.7, n_cosmic_rays=60),
    ExposureSettings((-5.4, 1.7), rotation_deg=0.3, fwhm_px=3.4, transparency=0.8, satellite_e=300),
    ExposureSettings((1.5, 6.2), passing_e=20_000),
    ExposureSettings((-2.2, -3.9), fwhm_px=3.2, sky_e=600),
)


@lru_cache(maxsize=2)
def _made(settings: tuple[ExposureSettings, ...]) -> tuple[Exposures, Reference]:
    exposures = make_exposures(settings, seed=5, shape=SHAPE)
    return exposures, build_reference(exposures.frames)


def test_depth_grows_with_the_square_root_of_the_number() -> None:
    """Four equal frames are 2.5 log10(√4) = 0.75 mag deeper than one, within 0.06."""
    _, made = _made(EQUAL)
    assert made.grade.n_frames == 4
    assert made.grade.gain_mag == pytest.approx(0.753, abs=0.06)
    assert made.effective_gain == pytest.approx(4.0, rel=0.02)


def test_flux_is_that_of_all_frames_together() -> None:
    """A star's flux is the first frame's times the effective gain within 1 %, also where frames differ."""
    exposures, made = _made(HARD)
    x, y = _isolated_stars(exposures)
    first, stacked = (_fluxes(frame, x, y) for frame in (exposures.frames[0], made.frame))
    ratio = stacked / made.effective_gain / first
    assert np.count_nonzero(np.isfinite(ratio)) >= 10
    assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.01)


def _isolated_stars(exposures: Exposures) -> tuple[np.ndarray, np.ndarray]:
    field = exposures.field
    x, y = field.star_x, field.star_y
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(x.size)
    good = (apart.min(axis=1) > 13) & (np.minimum(x, y) > 18) & (np.maximum(x, y) < SHAPE[0] - 18)
    good &= (field.star_flux_e > 5e3) & (field.star_flux_e < 3e5)
    return x[good], y[good]


def _fluxes(frame: Frame, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    seen = measure_frame(frame, DifferenceOptions())
    return fit_fluxes(seen.image, seen.variance, ~seen.unusable, seen.psf, x, y).flux


def test_rays_satellites_and_passing_sources_vanish() -> None:
    """What one frame only has is left out: not one spoiled pixel stands out of the reference by 6 sigma."""
    exposures, made = _made(HARD)
    seen = measure_frame(made.frame, DifferenceOptions())
    pulls = seen.image / np.sqrt(seen.variance)
    stars = np.zeros(SHAPE, bool)
    field = exposures.field
    for x, y, flux in zip(field.star_x, field.star_y, field.star_flux_e, strict=True):
        reach = 9 if flux < 3e4 else 16
        rows, columns = (slice(max(round(c) - reach, 0), max(round(c) + reach + 1, 0)) for c in (y, x))
        stars[rows, columns] = True
    assert np.count_nonzero(~stars) > 0.4 * stars.size
    assert np.abs(pulls[~stars & ~seen.unusable]).max() < 6
    middle = pulls[SHAPE[0] // 2 - 1 : SHAPE[0] // 2 + 2, SHAPE[1] // 2 - 1 : SHAPE[1] // 2 + 2]
    assert np.abs(middle).max() < 5
    rejected = [member.n_rejected for member in made.members]
    assert rejected[0] is not None
    assert rejected[0] < 40
    assert min(n for n in rejected[1:3] if n is not None) > 100


@pytest.mark.parametrize("settings", [EQUAL, HARD])
def test_significance_is_right_against_the_reference(settings: tuple[ExposureSettings, ...]) -> None:
    """Variance is right: the score of another night against the reference scatters by 1.00 ± 0.03 of itself."""
    _, made = _made(settings)
    tonight = ExposureSettings((0.7, 1.3), fwhm_px=3.3)
    science = make_exposures((*[ExposureSettings()] * 7, tonight), seed=5, shape=SHAPE).frames[-1]
    pair = run_pair(science, made.frame)
    assert pair.validation.std == pytest.approx(1.0, abs=0.03)
    assert pair.difference.noise_scale == pytest.approx(1.0, abs=0.05)
    assert len([c for c in pair.candidates.items if not c.is_doubted]) <= 1


def test_saturation_and_missing_pixels_travel() -> None:
    """Saturated in any frame is saturated in the reference; what no frame has is NO_DATA; coverage counts frames."""
    exposures = make_exposures(EQUAL, seed=5, shape=SHAPE)
    frames = [_without_corner(frame) for frame in exposures.frames]
    first = frames[0].mask.copy()
    first[200:204, 100:104] |= np.uint32(MaskBit.SATURATED)
    made = build_reference([replace(frames[0], mask=first), *frames[1:]])
    assert (made.frame.mask[201:203, 101:103] & np.uint32(MaskBit.SATURATED)).all()
    assert (made.coverage[201:203, 101:103] == 3).all()
    assert (made.frame.mask[:20, :20] & np.uint32(MaskBit.NO_DATA)).all()
    assert np.isposinf(made.frame.variance[:20, :20]).all()
    assert made.coverage[160, 160] == 4
    assert made.grade.coverage < 1.0
    usable = (made.frame.mask & np.uint32(UNUSABLE)) == 0
    assert np.isfinite(made.frame.variance[usable]).all()


def _without_corner(frame: Frame) -> Frame:
    mask, science, variance = frame.mask.copy(), frame.science.copy(), frame.variance.copy()
    mask[:40, :40] |= np.uint32(MaskBit.NO_DATA)
    science[:40, :40], variance[:40, :40] = 0, np.inf
    return replace(frame, mask=mask, science=science, variance=variance)


def test_frames_that_cannot_serve_are_named_with_the_reason() -> None:
    """Another filter, another field, hopeless seeing: left out, each with its sentence; the rest is stacked."""
    exposures = make_exposures((*EQUAL[:2], ExposureSettings(fwhm_px=6.5), *EQUAL[2:]), seed=5, shape=SHAPE)
    frames = list(exposures.frames)
    frames[1] = replace(frames[1], facts=replace(frames[1].facts, filter_name="g"))
    frames[3] = make_exposures((ExposureSettings((250.0, 0.0)),), seed=5, shape=SHAPE).frames[0]
    made = build_reference(frames)
    told = [member.excluded for member in made.members]
    assert told[0] is None
    assert told[4] is None
    assert told[1] == f"its filter is g, that of {frames[0].name} is r"
    assert told[2] is not None
    assert "times the sharpest frame's" in told[2]
    assert told[3] is not None
    assert told[3].startswith("overlap ")
    assert made.grade.n_frames == 2
    assert sum(member.weight or 0 for member in made.members) == pytest.approx(1.0)


def test_one_frame_is_no_reference() -> None:
    """Fewer than two frames that serve: nothing to do, with the reasons."""
    exposures = make_exposures(EQUAL[:2], seed=5, shape=SHAPE)
    other = replace(exposures.frames[1], unit="adu")
    with pytest.raises(NothingToDo, match=r"1 of 2 frames can be stacked, need 2 \(.*its unit is adu"):
        build_reference([exposures.frames[0], other])


def test_best_frame_lends_its_grid() -> None:
    """With `onto="best"` the reference lies on the grid of the frame with the least noise times seeing."""
    settings = (ExposureSettings(fwhm_px=3.4, sky_e=700), ExposureSettings((8.0, 5.0), fwhm_px=2.6))
    exposures = make_exposures(settings, seed=5, shape=SHAPE)
    made = build_reference(exposures.frames, StackOptions(onto="best"))
    assert made.frame.wcs is not None
    np.testing.assert_allclose(made.frame.wcs.wcs.crpix, exposures.frames[1].wcs.wcs.crpix)
    assert [member.name for member in made.members] == [frame.name for frame in exposures.frames]


def test_memory_does_not_grow_with_the_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames made one by one: five more of them add less than two bytes per pixel and frame."""
    monkeypatch.setattr("astrid_workers.imaging.combine.BAND_PIXELS", 1)
    shape, shifts = (384, 384), random_shifts(8)
    frames = make_exposures(tuple(ExposureSettings(s) for s in shifts), seed=6, shape=shape).frames

    def peak(n: int) -> int:
        tracemalloc.start()
        made = build_reference((replace(f, science=f.science.copy()) for f in frames[:n]), expected=n)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert made.grade.n_frames == n
        return most

    peak(3)  # what is kept for later calls is made now
    assert peak(8) - peak(3) < 2 * 5 * shape[0] * shape[1]


def random_shifts(n: int) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.random.default_rng(n).uniform(-4, 4, (n, 2))]
