"""From a cohort to one grid: planning, geometry, normalisation, and what was prepared."""
