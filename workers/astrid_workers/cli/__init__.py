"""The verbs of the astrid command, one file each."""
