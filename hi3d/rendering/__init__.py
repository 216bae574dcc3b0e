"""Objects to RGBA and depth orbits."""
