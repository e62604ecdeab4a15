"""Skies that a wide mesh does not describe: nebulae, spiral arms, and noise that changes within a cell.

Owns two questions to a sky that was measured on a wide mesh; finds no source and changes no image. Ordinary
frames, crowded ones too, have neither: what stars too faint to be found leave in one block says nothing of
the next, and a nebula goes on there.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from astrid_workers.frame import Float32Image
from astrid_workers.imaging.noise import robust_median_and_scatter

BoolImage = NDArray[np.bool_]

#: Side of the blocks whose means are compared with their neighbours', and of the cells whose noise is.
BLOCK_PX, CELL_PX = 16, 32
#: Rows that are looked at together, and pixels of all of them that are enough.
BAND_PX, ENOUGH_PIXELS = 128, 2_000_000
#: Usable share of a block or cell from which its mean counts, and blocks below which nothing is said.
LEAST_USABLE, FEWEST_BLOCKS = 0.4, 30
#: A sky has structure where neighbouring blocks differ from it alike by so many sigma of a pixel, and share
#: this much of their variance. Of 70 drawn frames crowds in poor seeing came to 0.38 and 0.34, skewed skies
#: to 0.07 and 0.48, a cluster of galaxies to 0.26 and 0.62, which wide cells describe better; nebulae as
#: strong as the noise begin at 0.29 and 0.6.
LEAST_STRUCTURE, LEAST_SMOOTHNESS = 0.27, 0.45
#: Noise changes within the mesh where so large a share of cells is off the usual by this much; at most 0.014
#: of a drawn frame's were.
MOST_OFF, LEAST_OFF_SHARE = 0.3, 0.03
#: Differences count up to so many sigma: beyond, they are sources.
CLIP_SIGMA = 4.0


def is_structured(image: Float32Image, level: Float32Image, rms: Float32Image, sky: BoolImage) -> bool:
    """Whether blank `sky` (True) of `image` differs smoothly from its measured `level`, by what matters
    beside its `rms` per pixel. All are `[y, x]` in one unit.
    """
    products, squares = [], []
    for rows in _bands(image.shape):
        pulls = np.where(sky[rows], (image[rows] - level[rows]) / rms[rows], np.float32(0))
        mean, good = _block_means(pulls, sky[rows], BLOCK_PX, BLOCK_PX)
        if np.count_nonzero(good) < 2:
            continue
        middle, scatter = robust_median_and_scatter(mean[good])
        mean = np.where(good, np.clip(mean - middle, -4 * scatter, 4 * scatter), 0.0)
        squares.append(mean[good] ** 2)
        products += [
            (mean[1:] * mean[:-1])[good[1:] & good[:-1]],
            (mean[:, 1:] * mean[:, :-1])[good[:, 1:] & good[:, :-1]],
        ]
    shared, all_of_it = (np.concatenate(each) if each else np.empty(0) for each in (products, squares))
    if min(shared.size, all_of_it.size) < FEWEST_BLOCKS:
        return False
    return bool(shared.mean() > max(LEAST_STRUCTURE**2, LEAST_SMOOTHNESS * float(all_of_it.mean())))


def noise_varies(image: Float32Image, rms: Float32Image, sky: BoolImage) -> bool:
    """Whether the noise of blank `sky`, told by neighbours' differences, changes against `rms` from cell to
    cell.
    """
    found = []
    for rows in _bands(image.shape):
        every = slice(rows.start, rows.stop, 2)
        steps = np.abs(image[every, 2:] - image[every, :-2]) / rms[every, 1:-1]
        np.minimum(steps, np.float32(CLIP_SIGMA), out=steps)
        usable = sky[every, 2:] & sky[every, :-2]
        steps[~usable] = 0
        mean, good = _block_means(steps, usable, CELL_PX // 2, CELL_PX)
        found.append(mean[good])
    cells = np.concatenate(found) if found else np.empty(0)
    usual = float(np.median(cells)) if cells.size >= FEWEST_BLOCKS else 0.0
    if usual == 0:  # too little is seen, or no noise: a dead detector
        return False
    off = np.abs(cells / usual - 1) > MOST_OFF
    return bool(off.mean() > LEAST_OFF_SHARE)


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Evenly spaced bands of rows, about `ENOUGH_PIXELS` in all."""
    every = max(1, shape[0] * shape[1] // ENOUGH_PIXELS)
    for top in range(0, shape[0], BAND_PX * every):
        yield slice(top, min(top + BAND_PX, shape[0]))


def _block_means(
    values: Float32Image, usable: BoolImage, rows: int, columns: int
) -> tuple[NDArray[np.float64], BoolImage]:
    """Means of the usable values of whole blocks, where the others are 0, and which of them count."""
    height, width = values.shape[0] // rows, values.shape[1] // columns
    blocks = (height, rows, width, columns)
    count = usable[: height * rows, : width * columns].reshape(blocks).sum(axis=(1, 3))
    total = values[: height * rows, : width * columns].reshape(blocks).sum(axis=(1, 3), dtype=np.float64)
    return total / np.maximum(count, 1), count > LEAST_USABLE * rows * columns
