"""Steering policies: one file each, named as configurations name them."""
