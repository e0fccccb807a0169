"""The worker executes attempts as processes."""
