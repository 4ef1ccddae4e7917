"""The documents of a release: cards, datasheet, licence and the Croissant description."""
