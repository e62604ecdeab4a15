"""The bits of a frame's mask.

Owns their names and meaning; never looks at pixels.
"""

from enum import IntFlag


class MaskBit(IntFlag):
    """Why a pixel is not trusted. Stored as uint32; 0 is a good pixel."""

    #: Named bad by a bad-pixel map, or dead or hot in a calibration frame.
    BAD_PIXEL = 1
    #: At or above the saturation level of its detector, grown over the bleed.
    SATURATED = 2
    #: Hit by a cosmic ray.
    COSMIC_RAY = 4
    #: Not measured: NaN or infinite in the file, or outside the footprint after resampling.
    NO_DATA = 8
    #: So close to the frame's or footprint's edge that kernels reach over it.
    EDGE = 16
    #: Its value was filled in from its neighbours before a Fourier transform.
    INTERPOLATED = 32
    #: On the track of a satellite or an aeroplane, whose light was taken off: noisier than it was.
    STREAK = 64
    #: In the halo of a saturated star, or on a spike of a bright one.
    STRAY_LIGHT = 128


#: Bits that make a pixel's value useless for any measurement.
UNUSABLE = MaskBit.BAD_PIXEL | MaskBit.SATURATED | MaskBit.COSMIC_RAY | MaskBit.NO_DATA
