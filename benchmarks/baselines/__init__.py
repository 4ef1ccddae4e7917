"""What a run is compared with: other ways to a set of labelled volumes, and one judge for all of them."""
