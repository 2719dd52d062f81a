"""What a training or a measurement will take, from its options and the model's config.json; no model is loaded."""
