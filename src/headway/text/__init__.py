"""Text around the tokens: tags, prompts, answers."""
