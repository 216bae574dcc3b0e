"""Large trainings: which weights are trained, on how many devices, from what."""
