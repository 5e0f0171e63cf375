"""Any dataset in, pairs or prompts out; rows that cannot be used come out as rejects."""
