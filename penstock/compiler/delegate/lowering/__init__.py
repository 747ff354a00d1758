"""What lowerings are written in. The builder keeps values and layout, expressions and movement
stand above it, what serves one family of operators above those."""
