"""annfeed."""
