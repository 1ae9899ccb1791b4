"""Writes a report: gathers, renders, and puts the file in place whole or not at all."""
