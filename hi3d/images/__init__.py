"""What is done with finished images alone: their perceptual distance, and videos of them."""
