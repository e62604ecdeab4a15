"""`astrid run` with injections and given positions, from files to files."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrid_workers.__main__ import main
from astrid_workers.sky import Sky, make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sky]:
    """A simulated pair as observers' files."""
    folder = tmp_path_factory.mktemp("frames")
    sky = make_sky(seed=51, shape=(320, 320), n_stars=70, n_transients=5, transient_snr=(20.0, 50.0))
    for name, data in zip(("science.fits", "reference.fits"), sky_to_fits(sky), strict=True):
        (folder / name).write_bytes(data)
    return folder, sky


def _run(folder: Path, *more: str) -> int:
    frames = str(folder / "science.fits"), str(folder / "reference.fits")
    return main(["run", *frames, "--out", str(folder / "out"), *more])


def test_depth_and_forced_photometry_stand_in_the_results(files: tuple[Path, Sky]) -> None:
    """--inject fills `injections` and a picture; --forced writes one row per position; a later run leaves neither."""
    folder, sky = files
    truth = sky.truth
    rows = [f"t{i},{row['ra_deg']:.8f},{row['dec_deg']:.8f}" for i, row in enumerate(truth)]
    (folder / "places.csv").write_text("name,ra_deg,dec_deg\n" + "\n".join(rows) + "\nfar,10,20\n")
    assert _run(folder, "--inject", "40", "--forced", str(folder / "places.csv")) == 0
    told = json.loads((folder / "out/report.json").read_text())
    assert told["injections"]["injected"] == 40
    assert 0 < told["injections"]["found"] < 40
    assert told["injections"]["all"]["snr_50"] == pytest.approx(5.2, abs=2)
    assert told["injections"]["all"]["mag_50"] is None
    assert told["zero_point_mag"] is None
    assert not any("filter" in sentence for sentence in told["assumed"])
    assert "How deep is this frame?" in (folder / "out/report.html").read_text()
    forced = Table.read(folder / "out/forced.ecsv")
    assert list(forced["name"]) == ["t0", "t1", "t2", "t3", "t4", "far"]
    assert forced["difference_flux"].mask[-1]
    assert forced["x"].mask[-1]
    for row, true in zip(forced[:-1], truth, strict=True):
        assert row["difference_flux"] == pytest.approx(true["flux_e"], abs=5 * row["difference_flux_err"])
    assert _run(folder) == 0
    assert json.loads((folder / "out/report.json").read_text())["injections"] is None
    assert not (folder / "out/forced.ecsv").exists()


def test_magnitudes_are_those_of_the_files_own_unit(files: tuple[Path, Sky], tmp_path: Path) -> None:
    """MAGZP counts ADU and fluxes are electrons: a star of known flux has its magnitude with a gain of 1.5."""
    folder, sky = files
    gain, zero_point = sky.science.facts.gain_e_per_adu, 25.0
    assert gain == 1.5
    for name, cards in (("science", {"MAGZP": zero_point}), ("reference", {"FILTER": "g"})):
        with fits.open(folder / f"{name}.fits") as (unit,):
            unit.header.update(cards)
            unit.writeto(tmp_path / f"{name}.fits")
    places = np.stack([sky.star_x, sky.star_y])
    apart = np.hypot(*(places[:, :, None] - places[:, None, :])) + 1e3 * np.eye(places.shape[1])
    inside = (np.abs(places - 160) < 130).all(axis=0)
    alone = (apart.min(axis=1) > 20) & inside & (sky.star_flux_e > 2e4)
    assert alone.any()
    rows = [f"{x:.3f},{y:.3f}" for x, y in zip(sky.star_x[alone], sky.star_y[alone], strict=True)]
    (tmp_path / "stars.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    assert _run(tmp_path, "--forced", str(tmp_path / "stars.csv")) == 0
    forced = Table.read(tmp_path / "out/forced.ecsv")
    true_mag = zero_point - 2.5 * np.log10(sky.star_flux_e[alone] / gain)
    np.testing.assert_allclose(forced["science_mag"], true_mag, atol=0.04)
    found = Table.read(tmp_path / "out/candidates.ecsv")
    for row in sky.truth:
        one = found[np.argmin(np.hypot(found["x"] - row["x"], found["y"] - row["y"]))]
        true_mag = zero_point - 2.5 * np.log10(row["flux_e"] / gain)
        assert one["mag"] == pytest.approx(true_mag, abs=5 * one["mag_err"])
        assert one["mag"] < one["limit_mag"] < 25
    told = json.loads((tmp_path / "out/report.json").read_text())
    assert told["zero_point_mag"] == pytest.approx(zero_point + 2.5 * np.log10(gain))
    assert "25.440" in (tmp_path / "out/report.html").read_text()
    assert any("filters differ, r and the reference's g" in sentence for sentence in told["assumed"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--inject", "0"], "--inject must be 1 to 100000 sources, got 0"),
        (["--inject", "9", "--inject-seed", "-1"], "--inject-seed must not be negative, got -1"),
        (["--forced", "{folder}/none.csv"], "none.csv: No such file or directory"),
        (["--forced", "{folder}/science.fits"], "science.fits: "),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    files: tuple[Path, Sky], more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on standard error, exit status 2, and the report says so too."""
    folder, _ = files
    assert _run(folder, *(word.format(folder=folder) for word in more)) == 2
    assert sentence in capsys.readouterr().err
