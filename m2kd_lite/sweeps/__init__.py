"""Many runs: what a file asks for, one cell, what it will cost, and where the cells run."""
