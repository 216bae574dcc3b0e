"""Reading of Wavefront files: OBJ objects and their MTL materials."""
