"""Turn a private cohort of 3D medical scans into a synthetic cohort that may be shared."""

__version__ = "0.1.0"
