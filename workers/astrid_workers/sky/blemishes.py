"""What spoils a science frame beyond rays and bad columns: each switched by its own number, with its truth.

Owns satellite trails, halos and ghosts of stars that clip, spikes of bright stars, bleeding, hot pixels,
fringes, amplifier steps, variable stars and how many glints there are. All fall on the science frame only.
Everything is off by default, and each draws from a generator of its own, so that switching one on moves no
star and no transient (noise is drawn anew).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from astrid_workers.sky.glints import Glints, draw_glints
from astrid_workers.sky.light import Points

Float64Array = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

#: Radius of a halo and of a ghost, and where the ghost stands from its star, pixels.
HALO_PX, GHOST_PX = 40.0, 14.0
GHOST_OFFSET_PX = (46.0, -31.0)
#: Length of a spike from its star, pixels; it fades as exp(-r / a third of this).
SPIKE_PX = 60
#: Half-width of a satellite's trail, pixels.
TRAIL_PX = 1.5
#: Periods of the two waves that a fringe pattern is made of, pixels.
FRINGE_PX = (37.0, 53.0)


@dataclass(frozen=True, slots=True)
class Blemishes:
    """How a science frame is spoilt. Zero and False: not at all."""

    #: Straight trails from edge to edge, and their electrons per pixel.
    n_satellites: int = 0
    satellite_e: float = 300.0
    #: Single pixels with a constant excess, and its electrons; no mask knows of them.
    n_hot_pixels: int = 0
    hot_pixel_e: float = 2000.0
    #: The right half's level over the left half's, electrons per pixel.
    amplifier_step_e: float = 0.0
    #: Amplitude of the fringes, electrons per pixel.
    fringe_e: float = 0.0
    #: Share of the light of each star that clips in a halo around it, in a ghost beside it; of each bright
    #: star in four spikes.
    halo_share: float = 0.0
    ghost_share: float = 0.0
    spike_share: float = 0.0
    #: Stars are bright from this share of the light on at which one clips; by how much their crosses are
    #: turned from the x axis towards the y axis, degrees.
    spikes_from: float = 1.0
    spike_angle_deg: float = 0.0
    #: Charge above saturation runs up and down its column.
    bleeds: bool = False
    #: Share of the stars that vary, and the rms of the relative change of their flux.
    variable_share: float = 0.0
    variable_rms: float = 0.3
    #: Chains of flashes, and how many flashes each has; short trails, and the limits of their lengths in
    #: pixels.
    n_glint_chains: int = 0
    glint_dots: int = 5
    n_glint_trails: int = 0
    glint_trail_px: tuple[float, float] = (6.0, 40.0)
    #: Electrons of one flash, or of a whole short trail.
    glint_e: float = 3000.0


#: Nothing is spoilt.
NONE = Blemishes()


@dataclass(frozen=True, slots=True, eq=False)
class Blemished:
    """What was done: the truth of `Blemishes`."""

    satellites: BoolImage
    hot_pixels: BoolImage
    #: Electrons of halos, ghosts and spikes.
    stray_light: Float64Array
    #: Added to the sky: fringes and the amplifier's step.
    pattern: Float64Array
    #: Science flux minus the flux that the reference has, per star; 0 for those that do not vary.
    change_e: Float64Array
    glints: Glints


def blemish(
    blemishes: Blemishes, seed: int, shape: tuple[int, int], stars: Points, clips_e: float
) -> Blemished:
    """Draw the blemishes of a frame. Stars of more than `clips_e` electrons clip."""
    satellites = np.zeros(shape, bool)
    for number in range(blemishes.n_satellites):
        satellites |= _trail(np.random.default_rng([seed, 1, number]), shape)
    hot = np.zeros(shape, bool)
    places = np.random.default_rng([seed, 2]).choice(hot.size, blemishes.n_hot_pixels, replace=False)
    hot.ravel()[places] = True
    return Blemished(
        satellites,
        hot,
        _stray_light(blemishes, shape, stars, clips_e),
        _pattern(blemishes, seed, shape),
        _changes(blemishes, seed, stars),
        draw_glints(
            seed,
            shape,
            n_chains=blemishes.n_glint_chains,
            dots=blemishes.glint_dots,
            n_trails=blemishes.n_glint_trails,
            trail_px=blemishes.glint_trail_px,
            flux_e=blemishes.glint_e,
        ),
    )


def bled(electrons: Float64Array, saturation_e: float) -> Float64Array:
    """`electrons` with what is above `saturation_e` moved along its column, half each way, until it fits."""
    full = electrons.copy()
    for column in np.flatnonzero((electrons > saturation_e).any(axis=0)):
        full[:, column] = _bled_column(electrons[:, column], saturation_e)
    return full


def _bled_column(charge: Float64Array, saturation_e: float) -> Float64Array:
    """Sweep the excess up with one half, then down with the other; what leaves the frame is lost."""
    excess = np.maximum(charge - saturation_e, 0.0)
    kept = np.minimum(charge, saturation_e)
    for order in (range(charge.size), range(charge.size - 1, -1, -1)):
        carried = 0.0
        for row in order:
            carried += excess[row] / 2
            room = min(saturation_e - kept[row], carried)
            kept[row] += room
            carried -= room
    return kept


def _trail(rng: np.random.Generator, shape: tuple[int, int]) -> BoolImage:
    """Pixels within `TRAIL_PX` of a line through a random place at a random angle."""
    y, x = np.indices(shape)
    angle = rng.uniform(0, np.pi)
    x0, y0 = rng.uniform(0.2, 0.8) * shape[1], rng.uniform(0.2, 0.8) * shape[0]
    distance: Float64Array = np.abs((y - y0) * np.cos(angle) - (x - x0) * np.sin(angle))
    return distance <= TRAIL_PX


def _stray_light(blemishes: Blemishes, shape: tuple[int, int], stars: Points, clips_e: float) -> Float64Array:
    stray = np.zeros(shape)
    y, x = np.indices(shape, dtype=np.float64)
    if blemishes.halo_share or blemishes.ghost_share:
        for star_x, star_y, flux in _brighter(stars, clips_e):
            dx, dy = x - star_x, y - star_y
            stray += flux * blemishes.halo_share * _disc(np.hypot(dx, dy), HALO_PX)
            away = np.hypot(dx - GHOST_OFFSET_PX[0], dy - GHOST_OFFSET_PX[1])
            stray += flux * blemishes.ghost_share * _disc(away, GHOST_PX)
    if blemishes.spike_share:
        turn = np.radians(blemishes.spike_angle_deg)
        for star_x, star_y, flux in _brighter(stars, blemishes.spikes_from * clips_e):
            dx, dy = x - star_x, y - star_y
            along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            stray += flux * blemishes.spike_share * _spikes(along, across)
    return stray


def _brighter(stars: Points, flux_e: float) -> Iterator[tuple[float, float, float]]:
    """x, y and flux of the stars of more than so many electrons."""
    bright = stars.flux > flux_e
    return zip(stars.x[bright], stars.y[bright], stars.flux[bright], strict=True)


def _disc(radius: Float64Array, edge_px: float) -> Float64Array:
    """A disc of unit light with an edge two pixels soft."""
    disc: Float64Array = special.expit((edge_px - radius) / 0.5) / (np.pi * edge_px**2)
    return disc


def _spikes(dx: Float64Array, dy: Float64Array) -> Float64Array:
    """A cross along both axes, one pixel of sigma wide, of unit light."""
    arms = np.zeros(dx.shape)
    for along, across in ((dx, dy), (dy, dx)):
        fading = np.exp(-np.abs(along) / (SPIKE_PX / 3)) * (np.abs(along) <= SPIKE_PX)
        arms += fading * np.exp(-0.5 * across**2)
    length = 2 * (SPIKE_PX / 3) * (1 - np.exp(-3.0))
    normalised: Float64Array = arms / (2 * length * np.sqrt(2 * np.pi))
    return normalised


def _pattern(blemishes: Blemishes, seed: int, shape: tuple[int, int]) -> Float64Array:
    pattern = np.zeros(shape)
    if blemishes.amplifier_step_e:
        pattern[:, shape[1] // 2 :] += blemishes.amplifier_step_e
    if blemishes.fringe_e:
        y, x = np.indices(shape, dtype=np.float64)
        rng = np.random.default_rng([seed, 3])
        for period in FRINGE_PX:
            angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
            along = x * np.cos(angle) + y * np.sin(angle)
            pattern += blemishes.fringe_e / 2 * np.sin(2 * np.pi * along / period + phase)
    return pattern


def _changes(blemishes: Blemishes, seed: int, stars: Points) -> Float64Array:
    rng = np.random.default_rng([seed, 4])
    varies = rng.uniform(size=stars.flux.size) < blemishes.variable_share
    change = rng.normal(0.0, blemishes.variable_rms, stars.flux.size)
    return np.where(varies, stars.flux * np.maximum(change, -0.95), 0.0)
