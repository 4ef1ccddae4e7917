"""What the benchmarks of speed share: clocks, turns, ratios, tables, cohorts and contenders."""
