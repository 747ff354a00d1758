"""``make fuzz``: mutated programs by the hundred thousand, loaded and run; see docs/security.md."""
