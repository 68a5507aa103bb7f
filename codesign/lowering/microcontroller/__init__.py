"""Integer layers for small processors: activations with channels last, sums of products in the microkernels of C."""
