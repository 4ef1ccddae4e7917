"""One resumable loop for both networks."""
