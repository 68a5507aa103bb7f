"""Schedules for processors: channel-blocked tensors, vectors of output channels, sums kept in vector registers."""
