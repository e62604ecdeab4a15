"""The report of a pair: it stands alone, says the numbers, and describes its pictures in words."""

import io
import json
import re
from functools import lru_cache

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.report.candidate_table import candidates_ecsv
from astrid_workers.report.figures import frames_figure, noise_figure, radial_profile
from astrid_workers.report.page import Picture, Section, render_page
from astrid_workers.report.page import Table as PageTable
from astrid_workers.report.pair_page import pair_numbers, pair_page
from astrid_workers.report.sheet import Mark, Panel, block_mean, sky_limits
from astrid_workers.sky import make_sky
from support.pairs import make_pair

PNG = b"\x89PNG\r\n\x1a\n"


@lru_cache(maxsize=1)
def pair() -> PairResult:
    """A pair with a few transients."""
    sky = make_sky(seed=6, shape=(320, 320), n_stars=70, n_transients=6, transient_snr=(20.0, 40.0))
    return run_pair(sky.science, sky.reference, DifferenceOptions())


def test_page_stands_alone() -> None:
    """No network, no script, a language, a title and words for every picture."""
    page = pair_page(pair(), {**pair_numbers(pair()), "seconds": 1.0, "version": "1"}, "science − reference")
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert '<html lang="en">' in page
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 4
    assert all(re.search(r'alt="[^"]{10,}"', picture) for picture in pictures)


def test_numbers_can_be_stored() -> None:
    """JSON without NaN, with the keys that a reader of report.json relies on."""
    numbers = json.loads(json.dumps(pair_numbers(pair()), allow_nan=False))
    assert {
        "fwhm_science_px",
        "fwhm_reference_px",
        "flux_scale",
        "noise_scale",
        "threshold",
        "n_candidates",
        "assumed",
    } <= (numbers.keys())
    assert numbers["threshold"] == 5.0


def test_text_in_a_page_is_escaped() -> None:
    """A file name is text, never markup."""
    page = render_page(
        "<b>", "a & b", [("x", "<i>")],
        [Section("<u>", ["<p>"], [Picture(PNG, 'a "quoted" alt', "<c>")], [PageTable("<t>", ["<h>"], [["<r>"]])])],
    )  # fmt: skip
    assert not re.search(r"<(?:b|i|u|c|t|h|r)>", page)
    assert "&lt;b&gt;" in page
    assert "&quot;quoted&quot;" in page


def test_candidates_have_units_and_masks() -> None:
    """x and y in pixels, fluxes in the frame's unit, RA and Dec masked without a WCS, confidence always."""
    made = make_pair("zogy", seed=6, n_transients=12, transient_snr=(20.0, 40.0))
    table = Table.read(candidates_ecsv(made.candidates.items, "electron"), format="ascii.ecsv")
    assert table.colnames[:10] == [
        "x", "y", "ra_deg", "dec_deg", "flux", "flux_err", "snr", "score", "confidence", "flags",
    ]  # fmt: skip
    assert str(table["x"].unit) == "pix"
    assert str(table["flux"].unit) == str(table["flux_err"].unit) == "electron"
    assert table["confidence"].mask.all()
    assert len(table) == len(made.candidates)
    assert np.isfinite(table["ra_deg"]).all()


@pytest.mark.parametrize("unit", ["electron", "adu", "MJy / sr", "quatloo / fortnight"])
def test_any_unit_of_a_frame_can_be_written(unit: str) -> None:
    """A unit that nobody knows travels as it was written; an empty list is a table too."""
    made = make_pair("zogy", seed=6, n_transients=12, transient_snr=(20.0, 40.0))
    for items in (made.candidates.items, ()):
        assert f"unit: {unit}" in candidates_ecsv(items, unit)


def test_frames_become_one_png() -> None:
    """NaN, negative values and a constant image are drawn, not choked on."""
    image = np.random.default_rng(1).normal(0, 1, (60, 80))
    image[:10] = np.nan
    png = frames_figure(
        [
            Panel(image, "sky", "sky"),
            Panel(image, "signed", "signed"),
            Panel(np.zeros((60, 80)), "flat", "signed"),
        ],
        [Mark(20.0, 30.0, True), Mark(50.0, 10.0, False)],
    )
    assert png.startswith(PNG)
    assert min(Image.open(io.BytesIO(png)).size) > 200


def test_histogram_is_drawn_for_few_values() -> None:
    """Ten samples are a histogram too."""
    assert noise_figure(np.random.default_rng(1).normal(0, 1, 10)).startswith(PNG)


def test_large_frames_are_averaged_not_sampled() -> None:
    """Blocks keep the mean and ignore what was not measured."""
    image = np.ones((1200, 900))
    image[:, ::2] = 3
    image[0, 0] = np.nan
    small = block_mean(image, 300)
    assert max(small.shape) <= 300
    assert np.nanmedian(small) == pytest.approx(2.0)
    assert np.isfinite(small).all()


def test_stretch_starts_below_the_sky() -> None:
    """Black lies two sigma under the median, white far above, also where nothing was measured."""
    image = np.random.default_rng(2).normal(100, 5, (200, 200))
    low, high = sky_limits(image)
    assert low == pytest.approx(90, abs=1)
    assert high > 150
    assert sky_limits(np.full((5, 5), np.nan)) == (0.0, 1.0)


def test_radial_profile_of_a_ring() -> None:
    """Means by rings, from the centre out."""
    stamp = np.hypot(*(np.indices((11, 11)) - 5))
    radius, profile = radial_profile(stamp)
    assert radius.tolist() == [0, 1, 2, 3, 4, 5]
    assert profile == pytest.approx(radius, abs=0.25)


@pytest.mark.parametrize("shape", [(600, 1300), (1121, 700)])
def test_blocks_are_averaged_as_their_slow_twin_does(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).normal(50, 3, shape).astype(np.float32)
    image[:30, 100:400] = np.nan
    step = -(-max(shape) // 560)
    ny, nx = (side // step for side in shape)

    def mean(y: int, x: int) -> float:
        block = image[y * step : (y + 1) * step, x * step : (x + 1) * step]
        measured = block[np.isfinite(block)]
        return float(measured.mean()) if measured.size else np.nan

    slow = [[mean(y, x) for x in range(nx)] for y in range(ny)]
    np.testing.assert_allclose(block_mean(image), slow, rtol=1e-5)


def test_the_first_row_is_at_the_bottom_and_circles_stand_where_they_belong() -> None:
    image = np.zeros((100, 200))
    image[10:20, 30:40] = 1.0
    mark = Mark(150.0, 80.0, True)
    png = frames_figure([Panel(image, "", "signed", 1.0)], [mark])
    drawn = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    dark_red = np.argwhere((drawn[..., 0] < 130) & (drawn[..., 0] > 80) & (drawn[..., 1] < 20))
    orange = np.argwhere((np.abs(drawn - (217, 95, 2)) < 20).all(axis=2))
    width, height, top = 475, 238, 28
    for places, x, y in ((dark_red, 34.5, 14.5), (orange, mark.x, mark.y)):
        row, column = (places.min(axis=0) + places.max(axis=0)) / 2
        assert column == pytest.approx((x + 0.5) / 200 * width, abs=2.5)
        assert row == pytest.approx(top + height - (y + 0.5) / 100 * height, abs=2.5)
