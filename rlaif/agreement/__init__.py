"""How far labels agree with people: figures with intervals, biases, calibration, and whether a judge may stand in."""
