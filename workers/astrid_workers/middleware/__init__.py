"""What surrounds every task, one concern per file.

All but `log_context` serve any Dramatiq application on Redis: they import nothing but Dramatiq, redis and
each other, so that these files, in a folder where Python looks, carry them into an image that knows nothing
of Astrid (`enlist`).
"""
