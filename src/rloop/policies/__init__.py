"""The native engine: one device, plain PyTorch on Hugging Face models."""
