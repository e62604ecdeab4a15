"""The images that `astrid run` writes: the difference with its variance and mask, and the score.

Owns their names and cards, so that photometry by any other program has errors, and knows why a pixel is NaN.
Measures nothing.
"""

from pathlib import Path
from types import TracebackType

from astrid_workers.cli.terminal import write_whole
from astrid_workers.differencing.pair import PairResult
from astrid_workers.storage.fits import image_to_fits
from astrid_workers.storage.fits_artifacts import mask_to_fits
from astrid_workers.storage.fits_parts import MosaicFile

Cards = dict[str, str | int | float | bool | None]

IMAGES = ("difference.fits", "variance.fits", "mask.fits", "score.fits")


def write_images(folder: Path, pair: PairResult) -> None:
    """Each as a file of its own; one of them is in memory a second time while it is written."""
    made, wcs = pair.difference, pair.wcs
    write_whole(folder / "difference.fits", image_to_fits(made.difference, wcs=wcs, cards=_cards(pair)))
    write_whole(folder / "variance.fits", image_to_fits(made.variance, wcs=wcs, cards=_of_variance(pair)))
    write_whole(folder / "mask.fits", mask_to_fits(made.mask, wcs=wcs))
    write_whole(folder / "score.fits", image_to_fits(made.score, wcs=wcs, cards=_of_score(pair)))


class MosaicImages:
    """The same of a mosaic, one extension for each part in each file: all of it, or nothing."""

    def __init__(self, folder: Path) -> None:
        self._files = [MosaicFile(folder / name) for name in IMAGES]

    def __enter__(self) -> "MosaicImages":
        for file in self._files:
            file.__enter__()
        return self

    def add(self, name: str, pair: PairResult) -> None:
        """Append one part."""
        made, wcs = pair.difference, pair.wcs
        difference, variance, mask, score = self._files
        difference.add(name, made.difference, wcs, _cards(pair))
        variance.add(name, made.variance, wcs, _of_variance(pair))
        mask.add_written(name, mask_to_fits(made.mask, wcs=wcs))
        score.add(name, made.score, wcs, _of_score(pair))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.__exit__(kind, error, trace)


def _cards(pair: PairResult) -> Cards:
    """What the pixels mean: they are in the science frame's unit, not in its file's."""
    made, facts = pair.difference, pair.science.facts
    return {
        "BUNIT": made.unit,
        "FLXSCALE": made.flux_scale,
        "ALGORITH": made.algorithm,
        "MAGZP": facts.zero_point_mag,
        "GAIN": 1.0 if made.unit == "electron" else None,
        "EXPTIME": facts.exposure_s,
        "FILTER": facts.filter_name,
    }


def _of_variance(pair: PairResult) -> Cards:
    return {**_cards(pair), "BUNIT": f"({pair.difference.unit})2", "MAGZP": None, "GAIN": None}


def _of_score(pair: PairResult) -> Cards:
    made = pair.difference
    return {"BUNIT": "sigma", "NOISESCL": made.noise_scale, "ALGORITH": made.algorithm}
