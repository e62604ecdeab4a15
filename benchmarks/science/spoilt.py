"""Frames as they come on a bad night, or from another's pipeline, without a map or a card that would warn.

Owns spoiling the science file of a simulated realistic pair and counting what is delivered; never tunes
anything. Everything goes the way of `astrid run`: the file is read, calibrated, differenced. False candidates
are clean ones (no flag speaks against them) per Mpix; what is found is of transients above S/N 10 on pixels
that the spoilt frame still has; neither at the frame's edge.

    python benchmarks/science/spoilt.py 9451 9452 --ways "border of zeros,fringes"
"""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from pairs import make_pair

from astrid_workers.differencing.pair import run_pair
from astrid_workers.errors import AstridError
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.sky import Sky, sky_to_fits
from astrid_workers.storage.fits import read_frame

Image = NDArray[np.float32]
MATCH_PX, BORDER_PX, LEAST_SNR = 2.5, 20, 10.0
FACTS = ("GAIN", "RDNOISE", "SATURATE")


@dataclass(frozen=True, slots=True)
class File:
    """Pixels and cards of a science file, and how truth's places map to its pixels."""

    pixels: Image
    cards: fits.Header
    #: Pixels of the drawn frame per pixel of the file.
    binning: int = 1

    def without(self, *cards: str) -> "File":
        """The same pixels without these cards."""
        kept = self.cards.copy()
        for card in cards:
            kept.remove(card, ignore_missing=True)
        return File(self.pixels, kept, self.binning)

    def with_pixels(self, pixels: NDArray[np.floating]) -> "File":
        """Other pixels under the same cards."""
        return File(pixels.astype(np.float32), self.cards, self.binning)

    def placed(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """x and y of the pixels as shares of the frame's sides."""
        rows, columns = np.indices(self.pixels.shape)
        return columns / self.pixels.shape[1], rows / self.pixels.shape[0]


def _border(file: File) -> File:
    x, y = file.placed()
    return file.with_pixels(np.where((y < 0.08) | (x + 0.3 * y < 0.1), 0, file.pixels))


def _half(file: File) -> File:
    return file.with_pixels(np.where(file.placed()[0] < 0.5, np.nan, file.pixels))


def _dead_lines(file: File) -> File:
    pixels = file.pixels.copy()
    side = pixels.shape[1]
    pixels[:, side // 3], pixels[:, side // 5] = 0, np.median(pixels)
    pixels[side // 4] *= 1.3
    return file.with_pixels(pixels)


def _subtracted(file: File) -> File:
    return file.without(*FACTS).with_pixels(file.pixels - np.median(file.pixels))


def _low_saturate(file: File) -> File:
    cards = file.cards.copy()
    cards["SATURATE"] = float(np.median(file.pixels) * 1.2 + 100)
    return File(file.pixels, cards)


def _clouds(file: File) -> File:
    sky = np.median(file.pixels)
    return file.with_pixels(sky + (file.pixels - sky) * (0.4 + 0.5 * file.placed()[0]))


def _moon(file: File) -> File:
    x, y = file.placed()
    light = 10 * np.median(file.pixels) * np.exp(-((x - 1.08) ** 2 + (y + 0.05) ** 2) / 0.4)
    gain = file.cards["GAIN"]
    noise = np.random.default_rng(1).normal(0, np.sqrt(light / gain))
    return file.with_pixels(file.pixels + light + noise)


def _fringes(file: File) -> File:
    rows, columns = np.indices(file.pixels.shape)
    wave = np.sin(columns / 12 + rows / 40 + 3 * np.sin(rows / 200))
    return file.with_pixels(file.pixels + 0.04 * np.median(file.pixels) * wave)


def _amplifiers(file: File) -> File:
    right = file.placed()[0] >= 0.5
    return file.with_pixels(file.pixels * np.where(right, 1.03, 1.0) + 30 * right)


def _binned(file: File) -> File:
    ny, nx = (side // 2 for side in file.pixels.shape)
    pixels = file.pixels[: 2 * ny, : 2 * nx].reshape(ny, 2, nx, 2).sum(axis=(1, 3))
    cards = fits.Header([(card, file.cards[card]) for card in FACTS])
    return File(pixels.astype(np.float32), cards, binning=2)


WAYS: dict[str, Callable[[File], File]] = {
    "as it is": lambda file: file,
    "border of zeros": _border,
    "half of it NaN": _half,
    "dead lines": _dead_lines,
    "sky subtracted and no cards": _subtracted,
    "SATURATE just above the sky": _low_saturate,
    "clouds": _clouds,
    "moonlight of ten times the sky": _moon,
    "fringes of 4 % of the sky": _fringes,
    "step between amplifiers": _amplifiers,
    "binned 2 x 2 without WCS": _binned,
}


def run_way(sky: Sky, way: str) -> dict[str, Any]:
    """One spoilt pair to its end; what is delivered, or the sentence that it was refused with."""
    science, reference = sky_to_fits(sky)
    with fits.open(io.BytesIO(science)) as units:
        spoilt = WAYS[way](File(units[0].data.astype(np.float32), units[0].header.copy()))
    buffer = io.BytesIO()
    fits.PrimaryHDU(spoilt.pixels, spoilt.cards).writeto(buffer)
    try:
        frames = [
            calibrate(read_frame(data, name=name)).frame
            for data, name in ((buffer.getvalue(), "science"), (reference, "reference"))
        ]
        pair = run_pair(*frames)
    except AstridError as error:
        return {"refused": str(error)}
    return _counted(sky, spoilt, pair)


def _counted(sky: Sky, spoilt: File, pair: Any) -> dict[str, Any]:
    x, y = ((sky.truth[axis] - (spoilt.binning - 1) / 2) / spoilt.binning for axis in ("x", "y"))
    ny, nx = pair.difference.shape
    usable = np.isfinite(pair.difference.score)
    usable[:BORDER_PX], usable[-BORDER_PX:], usable[:, :BORDER_PX], usable[:, -BORDER_PX:] = (False,) * 4
    inside = (x > 0) & (y > 0) & (x < nx - 1) & (y < ny - 1)
    inside[inside] = usable[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)]
    delivered = [c for c in pair.candidates.items if usable[round(c.y), round(c.x)]]
    clean = [c for c in delivered if not c.is_doubted]
    places = np.array([(c.x, c.y) for c in clean]).reshape(-1, 2)
    apart = np.hypot(places[:, 0, None] - x, places[:, 1, None] - y)
    strong = inside & (sky.truth["snr_local"] > LEAST_SNR)
    false = [c for c, alone in zip(clean, (apart >= MATCH_PX).all(axis=1), strict=True) if alone]
    return {
        "false_clean_per_mpix": len(false) / (np.count_nonzero(usable) / 1e6),
        "worst": [[round(c.x, 1), round(c.y, 1), round(c.score, 1), *c.flags] for c in false[:12]],
        "found": int(np.count_nonzero((apart[:, strong] < MATCH_PX).any(axis=0))),
        "of": int(np.count_nonzero(strong)),
        "flagged": len(delivered) - len(clean),
        "noise_scale": pair.difference.noise_scale,
        "passed": pair.validation.passed,
        "ran": pair.difference.algorithm,
    }


def main() -> None:
    """Print one row per way and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+", help="seeds that nothing was tuned on")
    parser.add_argument("--size", type=int, default=768, help="side of a frame, pixels")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated, of those in a full run")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    options = parser.parse_args()
    for seed in options.seeds:
        sky = make_pair("realistic", seed, options.size)
        for way in options.ways.split(","):
            row = {"way": way, "seed": seed, "size": options.size} | run_way(sky, way)
            print(json.dumps(row) if options.json else _line(row), flush=True)


def _line(row: dict[str, Any]) -> str:
    head = f"{row['way']:<30}{row['seed']:>6}  "
    if "refused" in row:
        return f"{head}refused: {row['refused']}"
    return (
        f"{head}{row['false_clean_per_mpix']:7.1f} false/Mpix, found {row['found']:3d} of {row['of']:3d}, "
        f"{row['flagged']:4d} flagged, noise {row['noise_scale']:.2f} times what was propagated, "
        f"{row['ran']}{'' if row['passed'] else ', told to be careful'}"
    )


if __name__ == "__main__":
    main()
