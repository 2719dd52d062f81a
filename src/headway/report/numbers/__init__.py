"""What report.json and compare.json hold."""
