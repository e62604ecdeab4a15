"""`astrid run` as a person uses it: what its flags do, what it leaves in the folder, and how it ends."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrid_workers.__main__ import main
from astrid_workers.cli import run_work
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import NothingToDo
from astrid_workers.frame import Frame
from astrid_workers.mask import MaskBit
from astrid_workers.numeric_threads import VARIABLES
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits

SKY = make_sky(seed=3, shape=(128, 128), n_stars=40, n_transients=4, transient_snr=(15, 40))
IMAGES = {"difference.fits", "variance.fits", "mask.fits", "score.fits"}
RESULTS = IMAGES | {"candidates.ecsv", "report.json", "report.html"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with sci.fits and ref.fits, as observers' files look."""
    folder = tmp_path_factory.mktemp("pair")
    for name, data in zip(("sci", "ref"), sky_to_fits(SKY), strict=True):
        (folder / f"{name}.fits").write_bytes(data)
    return folder


def write(path: Path, pixels) -> Path:
    """A plain image as FITS."""
    fits.PrimaryHDU(pixels).writeto(path)
    return path


@dataclass(slots=True)
class Asked:
    """What reached the subtraction."""

    science: list[Frame] = field(default_factory=list)
    reference: list[Frame] = field(default_factory=list)
    options: list[DifferenceOptions] = field(default_factory=list)


@pytest.fixture
def asked(monkeypatch):
    """Takes what would be subtracted, and ends there."""
    taken = Asked()

    def take(science, reference, options, _tell):
        taken.science.append(science)
        taken.reference.append(reference)
        taken.options.append(options)
        raise NothingToDo("overlap 12 %, need 60 %")

    monkeypatch.setattr(run_work, "run_pair", take)
    return taken


def astrid_run(files, out, *words):
    """Exit status of `astrid run sci.fits ref.fits --out OUT` with more words."""
    return main(
        ["run", str(files / "sci.fits"), str(files / "ref.fits"), "--out", str(out), *map(str, words)]
    )


def test_a_pair_becomes_files(files, tmp_path, capsys):
    """Candidates with their places and units, images on the science grid, a page, and the numbers of both."""
    status = astrid_run(files, tmp_path / "out", "--json")
    report = json.loads(capsys.readouterr().out)
    found = Table.read(tmp_path / "out/candidates.ecsv")

    assert (status, report["ending"]) == (0, "done")
    assert {path.name for path in (tmp_path / "out").iterdir()} == RESULTS
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    for name in (
        "seconds",
        "peak_rss_mb",
        "fwhm_science_px",
        "fwhm_reference_px",
        "flux_scale",
        "noise_scale",
    ):
        assert report[name] > 0, name
    assert (report["threshold"], report["n_candidates"]) == (5.0, len(found))
    for truth in SKY.truth:
        assert np.min(np.hypot(found["x"] - truth["x"], found["y"] - truth["y"])) < 1.5
    assert np.all(np.ma.getmaskarray(found["confidence"])), "nothing calibrated it"
    assert not np.any(np.ma.getmaskarray(found["ra_deg"]))
    for name, size in (("difference", 4), ("variance", 4), ("mask", 1), ("score", 4)):
        image = fits.getdata(tmp_path / f"out/{name}.fits")
        assert (image.shape, image.dtype.itemsize) == (SKY.science.shape, size)


def test_the_difference_has_its_errors_and_reasons_beside_it(files, tmp_path):
    """Variance is that of its pixels, the mask says by named bits why a pixel is NaN, and cards what values
    mean.
    """
    assert astrid_run(files, tmp_path) == 0
    difference, variance, mask = (
        fits.getdata(tmp_path / f"{name}.fits") for name in ("difference", "variance", "mask")
    )
    header, bits = fits.getheader(tmp_path / "difference.fits"), fits.getheader(tmp_path / "mask.fits")

    assert [bits[f"MASKBIT{number}"] for number in range(len(MaskBit))] == [bit.name for bit in MaskBit]
    assert sum(MaskBit) <= np.iinfo(mask.dtype).max
    assert np.all(mask[np.isnan(difference)] > 0)
    good = np.isfinite(difference) & (mask == 0)
    pulls = difference[good] / np.sqrt(variance[good])
    assert 1.4826 * np.median(np.abs(pulls - np.median(pulls))) == pytest.approx(1, abs=0.1)
    assert (header["BUNIT"], header["GAIN"]) == ("electron", 1.0)


def test_nothing_to_do_is_status_3_with_the_numbers(files, tmp_path, asked, capsys):
    """The sentence on standard error, the report with nulls, and no result of an earlier run left beside it."""
    (tmp_path / "score.fits").write_text("of an earlier run")

    assert astrid_run(files, tmp_path) == 3
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["ending"], report["n_candidates"]) == ("nothing_to_do", None)
    assert capsys.readouterr().err == "astrid run: overlap 12 %, need 60 %\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_input_that_cannot_be_used_is_status_2_with_one_sentence(files, tmp_path, capsys):
    """Which file, and what is wrong with it."""
    (tmp_path / "text.fits").write_text("not an image")

    assert (
        main(["run", str(tmp_path / "text.fits"), str(files / "ref.fits"), "--out", str(tmp_path / "o")]) == 2
    )
    said = capsys.readouterr().err
    assert said.startswith("astrid run: text.fits")
    assert said.count("\n") == 1


def test_mask_and_noise_come_from_their_files(files, tmp_path, asked):
    """A mask's any flag is a bad pixel of its frame; noise maps are 1 sigma, so the variance is their square."""
    flags = np.zeros(SKY.science.shape, np.uint8)
    flags[10, 20] = 7
    noise = np.full(SKY.science.shape, 3.0, np.float32)
    companions = [
        *("--mask", write(tmp_path / "mask.fits", flags)),
        *("--noise", write(tmp_path / "noise.fits", noise)),
        *("--reference-mask", write(tmp_path / "its-mask.fits", np.roll(flags, 30, axis=0))),
        *("--reference-noise", write(tmp_path / "other.fits", 2 * noise)),
    ]
    astrid_run(files, tmp_path / "out", *companions)
    (science,), (reference,) = asked.science, asked.reference

    assert science.mask[10, 20] & MaskBit.BAD_PIXEL
    assert not science.mask[40, 20] & MaskBit.BAD_PIXEL
    assert reference.mask[40, 20] & MaskBit.BAD_PIXEL
    ratio = np.median(reference.variance[np.isfinite(reference.variance)]) / np.median(science.variance)
    assert ratio == pytest.approx(4, rel=0.01)


def test_bias_dark_and_flat_correct_the_science_frame_alone(files, tmp_path, asked):
    """Each changes its pixels as calibration says; the reference stays as it was read."""
    shape = SKY.science.shape
    bias = write(tmp_path / "bias.fits", np.full(shape, 10.0, np.float32))
    flat = write(
        tmp_path / "flat.fits",
        np.full(shape, 1.0, np.float32) * np.linspace(0.5, 1.5, shape[1], dtype=np.float32),
    )
    dark = write(tmp_path / "dark.fits", np.full(shape, 30.0, np.float32))
    astrid_run(files, tmp_path / "a")
    astrid_run(files, tmp_path / "b", "--bias", bias)
    astrid_run(files, tmp_path / "c", "--bias", bias, "--dark", dark)
    astrid_run(files, tmp_path / "d", "--bias", bias, "--flat", flat)
    plain, less, least, flattened = (np.median(each.science[:, :32]) for each in asked.science)

    assert plain > less > least
    assert flattened > less, "the left of the flat is low"
    assert all(np.array_equal(each.science, asked.reference[0].science) for each in asked.reference)


def test_options_come_from_the_command_line_before_the_file(files, tmp_path, asked):
    """--config holds options of the subtraction; --threshold and --algorithm win over it."""
    config = tmp_path / "options.toml"
    config.write_text('threshold = 7\nalgorithm = "classic"\ntile_px = 128\n')
    astrid_run(files, tmp_path, "--config", config)
    astrid_run(files, tmp_path, "--config", config, "--threshold", 6, "--algorithm", "zogy")
    found = [(each.threshold_sigma, each.algorithm, each.tile_px) for each in asked.options]

    assert found == [(7.0, "classic", 128), (6.0, "zogy", 128)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tresh = 7", "options.toml: unknown option 'tresh', valid: threshold, "),
        ('threshold = "high"', "options.toml: threshold_sigma must be float, got 'high'"),
        ("threshold = 1", "the threshold must be 2 to 1000 sigma, got 1"),
        ('algorithm = "hotpants"', "unknown algorithm 'hotpants', valid: auto, zogy, classic, none"),
        ("= 3", "options.toml: not TOML"),
    ],
)
def test_a_bad_option_is_named_with_what_is_valid(files, tmp_path, asked, capsys, text, sentence):
    """Status 2 before a pixel is read."""
    config = tmp_path / "options.toml"
    config.write_text(text)

    assert astrid_run(files, tmp_path / "out", "--config", config) == 2
    assert sentence in capsys.readouterr().err
    assert asked.science == []


@pytest.mark.parametrize(("verb", "threads"), [("run", "1"), ("reference", "1"), ("show", None)])
def test_small_matrices_get_one_thread(
    monkeypatch: pytest.MonkeyPatch, verb: str, threads: str | None
) -> None:
    """As a program; a number that the user chose stays."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setattr("sys.argv", ["astrid", verb, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_NUM_THREADS"] == (threads or "")
    assert os.environ["MKL_NUM_THREADS"] == "3"
