"""What a program holds, as plain data: read, never run."""

from penstock.tools.describe.program import ProgramDescription, describe

__all__ = ["ProgramDescription", "describe"]
