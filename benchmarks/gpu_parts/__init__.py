"""What benchmarks/gpu_check.py measures, one function a part."""
