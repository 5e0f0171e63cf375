"""`rlaif reward serve`: scores of reward heads over HTTP, for whoever optimises against them."""
