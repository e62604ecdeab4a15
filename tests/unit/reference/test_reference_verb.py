"""`astrid reference`, from files to a file that `astrid run` takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from astrid_workers.__main__ import main
from astrid_workers.errors import FrameRejected
from astrid_workers.sky.make_exposures import ExposureSettings, make_exposures
from astrid_workers.sky.sky_to_fits import frame_to_user_fits
from astrid_workers.storage.fits_reference import read_reference

SETTINGS = (
    ExposureSettings(),
    ExposureSettings((3.5, 1.3), n_cosmic_rays=30),
    ExposureSettings((-2.4, 4.6)),
    ExposureSettings((1.1, -2.2), passing_e=9_000),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights, one tonight, and a file that is no frame."""
    place = tmp_path_factory.mktemp("nights")
    frames = make_exposures(SETTINGS, seed=9, shape=(256, 256), n_stars=80).frames
    for name, frame in zip(("one", "two", "three", "tonight"), frames, strict=True):
        (place / f"{name}.fits").write_bytes(frame_to_user_fits(frame))
    (place / "broken.fits").write_bytes(b"SIMPLE  =                    T")
    return place


def _build(folder: Path, *names: str, out: str = "reference.fits") -> int:
    return main(["reference", *(str(folder / f"{name}.fits") for name in names), "--out", str(folder / out)])


def test_frames_become_a_reference_that_run_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The grade stands in cards and JSON, what was left out is named, and a run against it finds the source."""
    assert _build(folder, "one", "two", "broken", "three") == 0
    assert "left out broken.fits: broken.fits: " in capsys.readouterr().err
    told = json.loads((folder / "reference.json").read_text())
    assert told["grade"]["n_frames"] == 3
    assert [one["excluded"] is None for one in told["frames"]] == [True, True, True, False]
    with fits.open(folder / "reference.fits") as units:
        assert units["SCI"].header["NCOMBINE"] == 3
        assert units["SCI"].header["DEPTH5"] == pytest.approx(told["grade"]["depth_flux"])
        assert units["SCI"].header["EFFGAIN"] == pytest.approx(told["effective_gain"])
        assert units["COVERAGE"].data.max() == 3
    frames = str(folder / "tonight.fits"), str(folder / "reference.fits")
    assert main(["run", *frames, "--out", str(folder / "found")]) == 0
    found = json.loads((folder / "found/report.json").read_text())
    assert found["n_candidates"] == 1
    assert found["validation"]["score_scatter"] == pytest.approx(1.0, abs=0.04)
    assert any("stacked from 3 frames" in sentence for sentence in found["assumed"])


def test_a_damaged_reference_is_refused_in_one_sentence(folder: Path) -> None:
    """A file that looks like a reference of ours but is not whole is refused by name, never half believed."""
    assert _build(folder, "one", "three", out="other.fits") == 0
    with fits.open(folder / "other.fits", do_not_scale_image_data=True) as units:
        units["FACTS"].data = np.frombuffer(b"{", np.uint8)
        units.writeto(folder / "damaged.fits")
    with pytest.raises(
        FrameRejected, match=r"damaged\.fits: looks like a reference of Astrid, but is damaged"
    ):
        read_reference(folder / "damaged.fits")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["{f}/one.fits", "--out", "{f}/x.fits"], 3, "1 of 1 frames can be stacked, need 2"),
        (["{f}/broken.fits", "--out", "{f}/x.fits"], 2, "none of 1 frames can be read"),
        (["{f}/one.fits", "{f}/two.fits", "--out", "{f}/one.fits"], 2, "one.fits is one of the frames"),
        (["{f}/one.fits", "{f}/two.fits", "--out", "{f}/no/x.fits"], 2, "there is no such folder"),
        (["{f}/one.fits", "{f}/two.fits", "--out", "{f}/x.json"], 2, "name a FITS file"),
        (
            ["{f}/one.fits", "{f}/two.fits", "--out", "{f}/x.fits", "--clip", "1"],
            2,
            "--clip must be 3 to 100",
        ),
    ],
)
def test_what_cannot_be_stacked_is_said_in_one_sentence(
    folder: Path, arguments: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status and sentence, per kind of refusal."""
    assert main(["reference", *(word.format(f=folder) for word in arguments)]) == status
    assert sentence in capsys.readouterr().err


def test_bias_dark_and_flat_correct_every_frame(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw frames with their masters become the stack of the clean frames; --json prints what the file holds."""
    rng = np.random.default_rng(3)
    shape = (256, 256)
    bias = np.full(shape, 300.0)
    dark = rng.uniform(4, 6, shape)
    flat = 1 + 0.2 * np.sin(np.arange(256) / 40)[None, :] * np.ones(shape)
    for name in ("one", "two", "three"):
        with fits.open(folder / f"{name}.fits") as units:
            header = units[0].header.copy()
            clean = units[0].data.astype(float)
        for card in ("BSCALE", "BZERO"):
            header.remove(card, ignore_missing=True)
        fits.PrimaryHDU(clean.astype(np.float32), header).writeto(tmp_path / f"{name}.fits")
        header["SATURATE"] = 1e6
        raw = clean * flat + bias + dark
        fits.PrimaryHDU(raw.astype(np.float32), header).writeto(tmp_path / f"raw_{name}.fits")
    exposure = fits.Header({"EXPTIME": header["EXPTIME"]})
    masters = {"bias": bias, "dark": bias + dark, "flat": 1000 * flat + bias}
    for name, image in masters.items():
        fits.PrimaryHDU(image.astype(np.float32), exposure).writeto(tmp_path / f"{name}.fits")
    flags = [word for name in masters for word in (f"--{name}", str(tmp_path / f"{name}.fits"))]

    assert _build(tmp_path, "one", "two", "three", out="clean.fits") == 0
    capsys.readouterr()
    raws = [str(tmp_path / f"raw_{name}.fits") for name in ("one", "two", "three")]
    assert main(["reference", *raws, *flags, "--json", "--out", str(tmp_path / "made.fits")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "made.json").read_text())
    assert main(["reference", *raws, "--out", str(tmp_path / "raw.fits")]) == 0
    clean, made, raw = (read_reference(tmp_path / f"{name}.fits") for name in ("clean", "made", "raw"))
    usable = (clean.mask | made.mask) == 0
    level = np.median(clean.science[usable])
    assert np.median(np.abs(made.science - clean.science)[usable]) < 0.02 * level
    assert np.median(np.abs(raw.science - clean.science)[usable]) > 0.1 * level
