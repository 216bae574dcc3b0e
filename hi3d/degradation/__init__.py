"""Real-ESRGAN-style degradation of orbit videos, for the refiner's training (Section 4.3)."""
