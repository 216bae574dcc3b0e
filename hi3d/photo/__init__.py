"""A photo to the reference image: cut out of its background and framed as training renders are."""
