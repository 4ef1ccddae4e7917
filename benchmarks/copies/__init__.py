"""The parts of the planted-copy benchmark: data, disguises, generators, judges, tables."""
