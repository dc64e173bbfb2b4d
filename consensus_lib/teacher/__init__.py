"""Teachers: labels for photographs without any."""
