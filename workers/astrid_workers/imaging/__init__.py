"""Array kernels that more than one stage uses.

Arrays and numbers in, values out. Never imports a stage, a client, a setting or a clock.
"""
