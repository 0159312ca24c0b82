"""Physical memory: sparse frames, overlays of edits, images in files."""
