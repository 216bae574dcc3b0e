"""Batches of orbits for training, from disks or streams."""
