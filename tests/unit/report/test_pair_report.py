"""The report of a pair: it stands alone, says the numbers, and describes its pictures in words."""

import base64
import io
import json
import re
from dataclasses import replace
from functools import lru_cache
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from astropy.table import Table
from matplotlib import colormaps
from PIL import Image

from astrid_workers.differencing.pair import PairResult, run_pair
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.differencing.star_residuals import star_residuals
from astrid_workers.imaging.psf import given_psf
from astrid_workers.imaging.psf_shape import psf_shapes
from astrid_workers.report.candidate_table import candidates_ecsv
from astrid_workers.report.drawing import tick_label, ticks
from astrid_workers.report.figures import Mark, frames_figure, noise_figure, radial_profile
from astrid_workers.report.page import Picture, Section, render_page
from astrid_workers.report.page import Table as PageTable
from astrid_workers.report.pair_page import pair_numbers, pair_page
from astrid_workers.report.png import indexed_png
from astrid_workers.report.stretch import UNMEASURED, Panel, Stretch, block_mean, palette, sky_limits
from astrid_workers.sky import make_sky
from support.pairs import make_pair

PNG = b"\x89PNG\r\n\x1a\n"
SVG = "{http://www.w3.org/2000/svg}"


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
    pictures = re.findall(r'<div role="img" aria-label="([^"]*)"><svg', page)
    assert len(pictures) >= 7
    assert all(len(words) > 10 for words in pictures)
    for heading in (
        "Frames",
        "Candidates",
        "Can it be believed?",
        "What is left at stars",
        "Registration and gain",
    ):
        assert f"<h2>{heading}</h2>" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)


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


def test_candidates_have_magnitudes_where_a_zero_point_is() -> None:
    """Of positive fluxes, with error and 5-sigma limit, by the zero point of each one's part; masked elsewhere."""
    made = make_pair("zogy", seed=6, n_transients=12, transient_snr=(20.0, 40.0), negative_fraction=0.4)
    items = made.candidates.items
    up = np.array([c.is_positive for c in items])
    assert 0 < up.sum() < len(items)
    table = Table.read(candidates_ecsv(items, "electron", zero_point_mag=27.5), format="ascii.ecsv")
    flux, error = np.array(table["flux"]), np.array(table["flux_err"])
    np.testing.assert_allclose(table["mag"][up], 27.5 - 2.5 * np.log10(flux[up]))
    np.testing.assert_allclose(table["mag_err"][up], 2.5 / np.log(10) * error[up] / flux[up])
    np.testing.assert_allclose(table["limit_mag"], 27.5 - 2.5 * np.log10(5 * error))
    assert list(table["mag"].mask) == list(table["mag_err"].mask) == list(~up)
    assert {str(table[name].unit) for name in ("mag", "mag_err", "limit_mag")} == {"mag"}
    assert all(table[name].description for name in ("mag", "mag_err", "limit_mag"))
    points = [None, *[26.5] * (len(items) - 1)]
    of_parts = Table.read(candidates_ecsv(items, "electron", zero_point_mag=points), format="ascii.ecsv")
    assert list(of_parts["limit_mag"].mask) == [True] + [False] * (len(items) - 1)
    np.testing.assert_allclose(of_parts["limit_mag"][1:], table["limit_mag"][1:] - 1)
    nothing = Table.read(candidates_ecsv(items, "electron"), format="ascii.ecsv")
    assert nothing["limit_mag"].mask.all()


@pytest.mark.parametrize("unit", ["electron", "adu", "MJy / sr", "quatloo / fortnight"])
def test_any_unit_of_a_frame_can_be_written(unit: str) -> None:
    """A unit that nobody knows travels as it was written; an empty list is a table too."""
    made = make_pair("zogy", seed=6, n_transients=12, transient_snr=(20.0, 40.0))
    for items in (made.candidates.items, ()):
        assert f"unit: {unit}" in candidates_ecsv(items, unit)


def test_frames_become_one_drawing() -> None:
    """NaN, negative values and a constant image are drawn, not choked on."""
    image = np.random.default_rng(1).normal(0, 1, (60, 80))
    image[:10] = np.nan
    drawing = frames_figure(
        [
            Panel(image, "sky", "sky"),
            Panel(image, "signed", "signed"),
            Panel(np.zeros((60, 80)), "flat", "signed"),
        ],
        [Mark(20.0, 30.0, True), Mark(50.0, 10.0, False)],
    )
    assert [image.size for image in images_of(drawing)] == [(80, 60)] * 3
    assert (np.asarray(images_of(drawing)[0])[-10:] == UNMEASURED).all()


def test_histogram_is_drawn_for_few_values() -> None:
    """Ten samples are a histogram too."""
    drawing = ET.fromstring(noise_figure(np.random.default_rng(1).normal(0, 1, 10)))
    assert len(drawing.findall(f"{SVG}path")) > 2


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
    drawing = frames_figure([Panel(image, "", "signed", 1.0)], [mark])
    reddest = np.argwhere(np.asarray(images_of(drawing)[0]) == 254)
    assert (reddest.min(axis=0).tolist(), reddest.max(axis=0).tolist()) == ([80, 30], [89, 39])
    sheet = ET.fromstring(drawing)
    (box,), (circle,) = sheet.findall(f"{SVG}rect"), sheet.findall(f"{SVG}circle")
    left, top, width, height = (float(box.get(name, "nan")) for name in ("x", "y", "width", "height"))
    assert float(circle.get("cx", "nan")) == pytest.approx(left + (mark.x + 0.5) / 200 * width, abs=0.1)
    assert float(circle.get("cy", "nan")) == pytest.approx(top + (100 - mark.y - 0.5) / 100 * height, abs=0.1)


def test_a_png_holds_its_indices_and_colours() -> None:
    """Read back by an independent reader."""
    index = np.random.default_rng(1).integers(0, 256, (37, 91)).astype(np.uint8)
    read = Image.open(io.BytesIO(indexed_png(index, palette("signed"))))
    assert np.array_equal(np.asarray(read), index)
    assert np.array_equal(np.asarray(read.convert("RGB")), palette("signed")[index])


@pytest.mark.parametrize(("stretch", "twin"), [("signed", "RdBu_r"), ("decades", "viridis"), ("sky", "gray")])
def test_colours_are_those_that_everybody_knows(stretch: Stretch, twin: str) -> None:
    """Within a few levels of matplotlib's scales; what was not measured is grey."""
    known = colormaps[twin](np.linspace(0, 1, 255), bytes=True)[:, :3].astype(int)
    assert np.abs(palette(stretch)[:255].astype(int) - known).max() <= 16
    assert len(set(palette(stretch)[255].tolist())) == 1


@pytest.mark.parametrize(
    ("ends", "is_log", "expected"),
    [
        ((-6, 6), False, ["−6", "−4", "−2", "0", "2", "4", "6"]),
        ((0, 33), False, ["0", "5", "10", "15", "20", "25", "30"]),
        ((1e-5, 1.5), True, ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]),
        ((4, 30), True, ["5", "7", "10", "20", "30"]),
    ],
)
def test_ticks_are_round(ends: tuple[float, float], is_log: bool, expected: list[str]) -> None:
    assert [tick_label(value, is_log=is_log) for value in ticks(*ends, is_log=is_log)] == expected


def test_shapes_of_a_known_psf() -> None:
    """An elongated Gaussian: width, axis ratio and angle come back, in rows and columns not exchanged."""
    axis = np.arange(31) - 15.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    turn = np.radians(30)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    psf = given_psf(np.exp(-0.5 * ((along / 2.0) ** 2 + (across / 1.6) ** 2)), (100, 100))
    shapes = psf_shapes(psf, np.array([10.0]), np.array([80.0]))
    assert shapes.fwhm_px[0] == pytest.approx(psf.fwhm_px)
    assert shapes.ellipticity[0] == pytest.approx(0.2, abs=0.01)
    assert np.degrees(shapes.angle_rad[0]) % 180 == pytest.approx(30, abs=1)
    assert psf.fwhm_px == pytest.approx(2.3548 * np.sqrt(2.0 * 1.6), rel=0.02)


def test_what_is_left_at_stars_is_told() -> None:
    """Little is left of a pair that subtracts well, and nobody is told of stars that are not there."""
    left = star_residuals(pair().science, pair().difference)
    assert left is not None
    middle = left.star.shape[0] // 2
    assert left.star[middle, middle] == pytest.approx(1, abs=0.02)
    assert abs(left.left[middle, middle]) < 0.1
    assert np.median(np.abs(left.score)) < 2
    assert star_residuals(pair().science, replace(pair().difference, match=None)) is None


def images_of(drawing: str) -> list[Image.Image]:
    """The images in a drawing, as they are stored."""
    coded = re.findall(r'href="data:image/png;base64,([^"]+)"', drawing)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in coded]
