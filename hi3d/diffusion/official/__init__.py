"""Networks, checkpoints and conditions of the code that Hi3D's authors released."""
