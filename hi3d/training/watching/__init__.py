"""What a training shows of itself: scalars, sampled orbits, and a forecast before it begins."""
