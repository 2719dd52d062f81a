"""The procedures that call a model: traces and branches."""
