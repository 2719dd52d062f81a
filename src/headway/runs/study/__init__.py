"""The study: settings, methods and seeds as cells that are trained, measured, kept as JSON, and reported."""
