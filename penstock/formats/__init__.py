"""Bytes to plain dataclasses and back. Knows no torch, no XNNPACK library, no graph rewriting."""
