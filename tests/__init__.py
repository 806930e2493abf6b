"""Tests of annfeed by room of the package; support/ has what they share, scripts/ what they run."""
