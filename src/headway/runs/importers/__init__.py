"""Traces made elsewhere: files and logs of completions in, an ordinary run folder out."""
