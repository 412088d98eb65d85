"""Policies: a path, a hub name or a GGUF file becomes a Hugging Face directory; loading, saving,
prompts."""
