"""The demonstration: a simulated night sent through the real pipeline, measured against its truth.

Owns the night, the services it starts and the report; everything in between is what users run.
"""
