"""Activation memory: what is live when, in which order steps run, and where in one arena every tensor lies."""
