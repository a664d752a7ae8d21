"""Code that is only about speed: the same numbers as the layers' plain formulas, sooner or in less memory.

A kernel stays while it wins more than a tenth of a network's time or memory on one core; ``tests/benchmarks`` measures.
"""
