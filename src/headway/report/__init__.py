"""What people read: a run's numbers, charts and pages. Knows run contents; calls no model."""
