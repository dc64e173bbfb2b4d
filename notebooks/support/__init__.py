"""What the notebooks use and a reader need not understand: checks of exercises, controls, the paper's figures."""
