"""From pairs to preference labels: plan the questions, ask them, read the verdicts, fold the labels."""
