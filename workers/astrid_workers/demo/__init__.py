"""The demonstration: a simulated night sent through the real pipeline, and what came of it measured against the truth.

Owns the night, the services it starts and the report; everything in between is what users run.
"""
