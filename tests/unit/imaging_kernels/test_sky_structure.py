"""Skies with structure of their own, or with noise that changes within a cell: told apart, and measured."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.frame import Float32Image
from astrid_workers.imaging.background import Background, estimate_background
from astrid_workers.imaging.measured_frame import frame_from_pixels
from astrid_workers.imaging.sky_structure import is_structured, noise_varies
from astrid_workers.sky import Sky, make_sky

Image = NDArray[np.float64]

SETTINGS = {
    "shape": (512, 512), "n_stars": 220, "n_galaxies": 100, "n_transients": 25, "n_saturated": 1,
    "transient_snr": (8.0, 60.0), "fwhm_science_px": 3.4, "fwhm_reference_px": 2.8, "transparency": 0.85,
    "negative_fraction": 0.2, "reference_depth": 4.0, "offset_px": (3.4, -2.7),
}  # fmt: skip
#: Scale of the drawn nebula, pixels, and its scatter, electrons, on a sky of sigma 20.
NEBULA_PX, NEBULA_E = 40.0, 100.0


def sky(seed: int = 401, **changes: object) -> Sky:
    return make_sky(seed=seed, **(SETTINGS | changes))  # type: ignore[arg-type]


@cache
def nebula(scale_px: float = NEBULA_PX, scatter_e: float = NEBULA_E, seed: int = 7) -> Image:
    """Diffuse light, nowhere negative, 20 pixels larger on each side than the frames."""
    noise = np.random.default_rng(seed).normal(0, 1, (552, 552))
    light = gaussian_filter(noise, scale_px, mode="wrap")
    return np.asarray(np.clip(light / light.std(), 0, None) * scatter_e)


def with_light(image: Float32Image, light: Image, seed: int) -> Float32Image:
    """`image` with more light, and that light's own photon noise."""
    return image + np.random.default_rng(seed).normal(light, np.sqrt(light)).astype(np.float32)


def measured(image: Float32Image, sky: Sky) -> Background:
    return estimate_background(image, sky.science.mask != 0)


def answers(image: Float32Image, sky: Sky) -> tuple[bool, bool]:
    """(structured, noise varies) against a sky of one level and one rms."""
    plain = measured(sky.science.science, sky)
    level, rms = (np.full(image.shape, value, np.float32) for value in (plain.median, plain.rms_median))
    blank = ~((sky.science.mask != 0) | plain.sources)
    return is_structured(image, level, rms, blank), noise_varies(image, rms, blank)


def test_a_nebula_is_structure_and_its_stars_are_not() -> None:
    """A plain sky passes, and one with diffuse light does not."""
    one = sky()
    image = one.science.science
    assert answers(image, one) == (False, False)
    assert answers(with_light(image, nebula()[20:-20, 20:-20], 1), one)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_stars": 2000},
        {"n_stars": 1800, "fwhm_science_px": 6.0},
        {"n_galaxies": 400},
        {"gradient_e": 400.0},
        {"n_stars": 20, "n_galaxies": 30},
    ],
    ids=["realistic", "crowded", "crowded in poor seeing", "galaxies", "gradient", "empty"],
)
def test_ordinary_skies_are_measured_as_before(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither question is answered by yes: level and rms are those of wide cells."""
    one = sky(seed=402, **changes)
    found = measured(one.science.science, one)
    for name in ("is_structured", "noise_varies"):
        monkeypatch.setattr(f"astrid_workers.imaging.background.{name}", lambda *_: False)
    plain = measured(one.science.science, one)
    np.testing.assert_array_equal(found.level, plain.level)
    np.testing.assert_array_equal(found.rms, plain.rms)


def test_a_dead_detector_has_neither() -> None:
    """One value everywhere is no structure and no noise."""
    flat, blank = np.full((256, 256), 100.0, np.float32), np.ones((256, 256), bool)
    level, rms = np.full_like(flat, 99.0), np.ones_like(flat)
    assert not is_structured(flat, level, rms, blank)
    assert not noise_varies(flat, rms, blank)


def test_noise_in_a_nebula_is_the_photons_alone() -> None:
    """The rms is the true one, where a wide cell's is several times that; the level follows the light."""
    one, light = sky(), nebula()[20:-20, 20:-20]
    found = measured(with_light(one.science.science, light, 1), one)
    plain = measured(one.science.science, one)

    true = np.sqrt(plain.rms_median**2 + light)
    assert np.median(found.rms / true) == pytest.approx(1, abs=0.04)
    assert np.std(found.rms / true) < 0.1
    left = (found.level - plain.level - light)[~found.sources]
    assert np.std(left) < 0.2 * np.std(light)


def test_a_noisy_strip_is_as_noisy_as_it_is() -> None:
    """A strip 40 pixels wide in which the noise is three times the frame's, in cells of 32; the frame's own
    stays.
    """
    one, rng = sky(), np.random.default_rng(3)
    image = one.science.science.copy()
    usual = measured(image, one).rms_median
    image[:, 100:140] += rng.normal(0, np.sqrt(8) * usual, (512, 40)).astype(np.float32)

    found = measured(image, one)

    assert np.median(found.rms[:, 112:128]) == pytest.approx(3 * usual, rel=0.25)
    assert np.median(found.rms[:, 180:]) == pytest.approx(usual, rel=0.04)


@pytest.mark.parametrize(
    ("scale_px", "scatter_e"), [(NEBULA_PX, NEBULA_E), (35.0, 12.0)], ids=["strong", "seen in one frame"]
)
def test_transients_in_a_nebula_are_found_and_little_else(scale_px: float, scatter_e: float) -> None:
    """A mesh of wide cells took strong light for noise: half of what is above S/N 10 was lost, and a hundred
    false candidates were clean. A weak one is seen in the deeper frame alone, and holds for both.
    """
    one, light = sky(seed=403), nebula(scale_px, scatter_e, seed=8)
    moved = np.clip(shift(light, (-2.7, 3.4), order=3), 0, None) / one.flux_scale
    pair = subtracted(one, light[20:-20, 20:-20], moved[20:-20, 20:-20])

    x, y = (np.array([getattr(each, of) for each in pair.candidates.items]) for of in ("x", "y"))
    strong = one.truth[one.truth["snr_local"] > 10]
    near = np.hypot(x[:, None] - strong["x"], y[:, None] - strong["y"]) < 3
    assert near.any(axis=0).mean() > 0.95
    real = (np.hypot(x[:, None] - one.truth["x"], y[:, None] - one.truth["y"]) < 3).any(axis=1)
    clean = [
        each for each, is_real in zip(pair.candidates.items, real, strict=True) if not (is_real or each.flags)
    ]
    assert len(clean) <= 1
    assert np.count_nonzero(~real) <= 8


def subtracted(one: Sky, light: Image, reference_light: Image) -> PairResult:
    frames = [
        frame_from_pixels(
            with_light(frame.science, more, seed),
            facts=frame.facts,
            unit="electron",
            wcs=frame.wcs,
            bad=frame.mask != 0,
        )
        for seed, (frame, more) in enumerate(((one.science, light), (one.reference, reference_light)))
    ]
    return run_pair(*frames)
