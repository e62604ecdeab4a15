"""The pipeline half of Astrid: Dramatiq actors and the image processing they run.

Owns frames, candidates and what is stored of them. Never imports the operator: the two halves share data
(a pod's environment and a handful of Redis keys), never code.
"""
