"""What surrounds every task, one concern per file.

These files import nothing of Astrid but errors: presence, drain and counters serve any Dramatiq application.
"""
