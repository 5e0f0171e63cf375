"""`rlaif review`: a local page on which people label pairs."""
