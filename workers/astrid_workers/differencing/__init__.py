"""The third stage: a reference is subtracted and candidates are extracted from the difference."""
