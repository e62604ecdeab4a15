"""Rows, artifacts and FITS files: the only place that writes to a database or a store."""
