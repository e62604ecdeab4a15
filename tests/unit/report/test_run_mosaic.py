"""`astrid run` on mosaics: every extension is a part of one observation."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrid_workers.__main__ import main
from astrid_workers.errors import FrameRejected
from astrid_workers.sky import Sky, make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits
from astrid_workers.storage.fits_parts import Part, matching_part, parts_of


def _sky(seed: int, ra_deg: float) -> Sky:
    return make_sky(
        seed=seed, shape=(192, 192), n_stars=50, n_transients=3, transient_snr=(20.0, 50.0), ra_deg=ra_deg
    )


SKIES = {"N1": _sky(71, 150.1), "S2": _sky(72, 150.3)}


def _mosaic(frames: dict[str, bytes]) -> fits.HDUList:
    units = [fits.PrimaryHDU()]
    for name, data in frames.items():
        with fits.open(io.BytesIO(data)) as single:
            header = single[0].header
            for card in ("SIMPLE", "EXTEND"):
                header.remove(card, ignore_missing=True)
            units.append(fits.ImageHDU(single[0].data.copy(), header.copy(), name=name))
    return fits.HDUList(units)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mosaic of two chips and its reference, in another order; and one with a dead chip."""
    place = tmp_path_factory.mktemp("mosaic")
    pairs = {name: sky_to_fits(sky) for name, sky in SKIES.items()}
    science = _mosaic({name: pair[0] for name, pair in pairs.items()})
    science["S2"].header["MAGZP"] = 25.0
    science.writeto(place / "science.fits")
    _mosaic({name: pairs[name][1] for name in ("S2", "N1")}).writeto(place / "reference.fits")
    dead = _mosaic({name: pair[0] for name, pair in pairs.items()})
    dead["S2"].data[:] = 0
    dead.writeto(place / "dead.fits")
    (place / "one.fits").write_bytes(pairs["N1"][1])
    return place


def _run(folder: Path, science: str, reference: str, *more: str) -> int:
    return main(["run", str(folder / science), str(folder / reference), "--out", str(folder / "out"), *more])


def test_every_part_is_differenced_and_told_apart(folder: Path) -> None:
    """Candidates carry their part, images one extension per part, the report the numbers of each; depth is joint."""
    rows = [f"{row['ra_deg']:.8f},{row['dec_deg']:.8f}" for sky in SKIES.values() for row in sky.truth]
    (folder / "places.csv").write_text("ra_deg,dec_deg\n" + "\n".join(rows) + "\n10,20\n")
    assert (
        _run(
            folder, "science.fits", "reference.fits", "--inject", "30", "--forced", str(folder / "places.csv")
        )
        == 0
    )
    out = folder / "out"
    told = json.loads((out / "report.json").read_text())
    assert [part["name"] for part in told["parts"]] == ["N1", "S2"]
    assert told["n_candidates"] == sum(part["n_candidates"] for part in told["parts"])
    assert (
        told["injections"]["injected"] == sum(part["injections"]["injected"] for part in told["parts"]) == 30
    )
    table = Table.read(out / "candidates.ecsv")
    for name, sky in SKIES.items():
        mine = table[table["part"] == name]
        for row in sky.truth:
            assert np.hypot(mine["x"] - row["x"], mine["y"] - row["y"]).min() < 0.5
    assert list(table["limit_mag"].mask) == list(table["part"] == "N1"), "only S2 has a zero point"
    assert [part["zero_point_mag"] is None for part in told["parts"]] == [True, False]
    with fits.open(out / "difference.fits") as units, fits.open(out / "score.fits") as scores:
        assert [unit.name for unit in units[1:]] == ["N1", "S2"]
        assert units["S2"].data.shape == (192, 192)
        assert scores["N1"].header["BUNIT"] == "sigma"
        assert scores["N1"].header["CRVAL1"] == pytest.approx(150.1)
    with fits.open(out / "variance.fits") as variances, fits.open(out / "mask.fits") as masks:
        assert [unit.name for unit in variances[1:]] == [unit.name for unit in masks[1:]] == ["N1", "S2"]
        assert masks["S2"].header["MASKBIT1"] == "SATURATED"
    forced = Table.read(out / "forced.ecsv")
    assert list(forced["part"].filled("")) == ["N1"] * 3 + ["S2"] * 3 + [""]
    for name in SKIES:
        assert "Candidates" in (out / f"report-{name}.html").read_text()
    assert "S2" in (out / "report.html").read_text()


def test_a_part_that_fails_is_named_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dead chip costs its own candidates only; its reason stands in the report, and its old page is gone."""
    assert _run(folder, "dead.fits", "reference.fits") == 0
    told = json.loads((folder / "out/report.json").read_text())
    assert [part["ending"] for part in told["parts"]] == ["done", "failed"]
    assert told["parts"][1]["reason"]
    assert "part S2 failed: " in capsys.readouterr().err
    assert not (folder / "out/report-S2.html").exists()


def test_a_single_image_serves_all_parts_and_leaves_no_parts_behind(folder: Path) -> None:
    """A reference of one image is the reference of every part; the part beyond it says that it does not overlap."""
    assert _run(folder, "science.fits", "one.fits") == 0
    told = json.loads((folder / "out/report.json").read_text())
    assert [part["ending"] for part in told["parts"]] == ["done", "failed"]
    assert told["parts"][1]["reason"].startswith("overlap 0 %")
    single = folder / "single.fits"
    single.write_bytes(sky_to_fits(SKIES["N1"])[0])
    assert _run(folder, "single.fits", "one.fits") == 0
    assert json.loads((folder / "out/report.json").read_text())["parts"] is None
    assert "part" not in Table.read(folder / "out/candidates.ecsv").colnames
    assert not list((folder / "out").glob("report-*.html"))


def test_pixels_do_not_say_which_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forced positions in x and y are refused on a mosaic."""
    (folder / "pixels.csv").write_text("x,y\n1,2\n")
    assert _run(folder, "science.fits", "reference.fits", "--forced", str(folder / "pixels.csv")) == 2
    assert "give ra_deg and dec_deg" in capsys.readouterr().err


def test_parts_are_told_from_companions(tmp_path: Path) -> None:
    """Variance, flags and weights are no parts; names that repeat get their number; one image is no mosaic."""
    image = np.zeros((20, 20), np.float32)

    def written(name: str, *extensions: str) -> Path:
        path = tmp_path / name
        units = [fits.PrimaryHDU(), *(fits.ImageHDU(image, name=extension) for extension in extensions)]
        fits.HDUList(units).writeto(path)
        return path

    assert parts_of(written("a.fits", "SCI", "ERR", "DQ")) == ()
    assert parts_of(written("b.fits", "SCI", "ERR", "SCI", "ERR")) == (Part("SCI_1", 1), Part("SCI_3", 3))
    assert parts_of(written("c.fits", "CCD 1", "CCD/2", "")) == (
        Part("CCD_1", 1), Part("CCD_2", 2), Part("HDU_3", 3),
    )  # fmt: skip
    assert parts_of(written("d.fits", "N1", "N1_WEIGHT")) == ()


def test_parts_meet_by_name_then_by_order(tmp_path: Path) -> None:
    """Another order is followed by name, other names by order; a mosaic without the part is refused by name."""
    image = np.zeros((20, 20), np.float32)
    for name, extensions in (("same", "BA"), ("other", "CD"), ("short", "A"), ("few", "AXY")):
        units = [fits.PrimaryHDU(), *(fits.ImageHDU(image, name=one) for one in extensions)]
        fits.HDUList(units).writeto(tmp_path / f"{name}.fits")
    among = (Part("A", 1), Part("B", 2))
    assert matching_part(tmp_path / "same.fits", among[1], among) == 1
    assert matching_part(tmp_path / "other.fits", among[1], among) == 2
    assert matching_part(tmp_path / "short.fits", among[1], among) is None
    with pytest.raises(FrameRejected, match=r"few\.fits has no part B, it has: A, X, Y"):
        matching_part(tmp_path / "few.fits", among[1], among)
