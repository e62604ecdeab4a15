"""What a contender of the contest is given and what it hands back.

Owns the folder of a pair, the folder of an answer and the meter; never subtracts anything. Imports nothing
but numpy and astropy at the top, since each contender runs in the Python that its own dependencies want.

A contender is a script: `contenders/NAME.py PAIR_FOLDER ANSWER_FOLDER SETTING`. It answers with `meta.json`
and either a score (`score.npy`) or a difference with its PSF and variance, from which the contest makes one.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS


@dataclass(frozen=True)
class Side:
    """One frame in electrons (gain 1), float64 `[y, x]`; True in `mask` where nothing was measured."""

    pixels: Any
    mask: Any
    header: Any
    path: Path

    @property
    def wcs(self) -> WCS | None:
        """None where the header has none."""
        return WCS(self.header) if "CTYPE1" in self.header else None

    def number(self, card: str) -> float:
        """A card of the header; NaN where it is absent."""
        return float(self.header.get(card, np.nan))


@dataclass(frozen=True)
class Pair:
    """Science and reference on their own grids."""

    science: Side
    reference: Side


def read_side(folder: Path, name: str) -> Side:
    """`NAME.fits` with `NAME_mask.fits`: saturated and bad pixels are known, cosmic rays are not."""
    pixels, header = fits.getdata(folder / f"{name}.fits", header=True)
    pixels = np.ascontiguousarray(pixels, np.float64)
    mask = np.asarray(fits.getdata(folder / f"{name}_mask.fits")) != 0
    return Side(pixels, mask | ~np.isfinite(pixels), header, folder / f"{name}.fits")


def read_pair(folder: Path) -> Pair:
    """The pair of a folder that the contest wrote."""
    return Pair(read_side(folder, "science"), read_side(folder, "reference"))


class Meter:
    """CPU seconds (user and system, children included) since it was made, and the largest process, MB."""

    def __init__(self) -> None:
        self.cpu_s, self.wall_s = _cpu_s(), time.monotonic()
        self.before_mb = _peak_mb(resource.RUSAGE_SELF)

    def read(self) -> dict[str, float]:
        """What the answer says about cost."""
        return {
            "cpu_s": _cpu_s() - self.cpu_s,
            "wall_s": time.monotonic() - self.wall_s,
            "peak_mb": max(_peak_mb(resource.RUSAGE_SELF), _peak_mb(resource.RUSAGE_CHILDREN)),
            "imports_mb": self.before_mb,
        }


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1e3


def versions(*packages: str) -> dict[str, str]:
    """Of installed distributions; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


Contender = Callable[[Pair, str], dict[str, Any]]


def compete(contender: Contender, settings: tuple[str, ...]) -> None:
    """Run `contender` as the command line says and write its answer.

    The dict that it returns holds arrays on the science grid (`score`; or `difference`, `psf`, `variance`;
    optional `flux`, `flux_error`, `valid`), and `meta` for the rest. What is written and read is not charged.
    """
    folder, answer, setting = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if setting not in settings:
        raise SystemExit(f"{setting!r} is not one of {', '.join(settings)}")
    pair = read_pair(folder)
    meter = Meter()
    made = contender(pair, setting)
    meta = made.pop("meta", {}) | meter.read()
    answer.mkdir(parents=True, exist_ok=True)
    for name, array in made.items():
        np.save(answer / f"{name}.npy", np.asarray(array, bool if name == "valid" else np.float32))
    (answer / "meta.json").write_text(json.dumps(meta))
