"""How published tables were scored: one protocol per table, never two in one."""
