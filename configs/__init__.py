"""Run configurations and model geometries that come with kvbench, as package data."""
