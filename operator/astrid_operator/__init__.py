"""The Kubernetes half of Astrid: watches AstridQueue objects and keeps one fleet of workers per queue.

Owns decisions about fleets and the writes that carry them out. Never imports the workers, numpy or dramatiq:
the two halves share data (the AstridQueue object, a pod's environment, a handful of Redis keys), never code.
"""
