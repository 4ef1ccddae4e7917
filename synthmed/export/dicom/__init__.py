"""DICOM: series and segmentations written from an approved set, and what `verify` sees of them."""
