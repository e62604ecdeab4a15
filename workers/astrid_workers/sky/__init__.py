"""Simulated frames with their truth, from a seed: for the demonstration, the tests and the benchmarks.
"""
