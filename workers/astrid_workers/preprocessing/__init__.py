"""The second stage: calibration, alignment and quality of one frame."""
