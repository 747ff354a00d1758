"""Where the time of a program goes: measured, put beside what the machine can do, grouped."""
