"""Workload: a network as loop nests, independent of any machine.

Nothing is imported here: loop nests alone need none of what reads a graph.
"""
