"""What looks at programs: plain data and functions, without torch."""
