"""Nouns of the whole project: records, protocols, errors. Imports nothing else of wattbench."""
