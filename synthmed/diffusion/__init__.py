"""Noise paths, losses, samplers and conditions: the mathematics of generation."""
