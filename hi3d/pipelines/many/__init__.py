"""Several results in one process: of several photos, and of several seeds of one."""
