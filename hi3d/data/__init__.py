"""Orbits, photos and degradations as the networks and the reconstruction take them."""
