"""Reading cohorts: importers, patients, duplicates, the split and the fingerprint."""
