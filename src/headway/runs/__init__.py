"""Run folders and what is done with them: measuring, importing, comparing."""
