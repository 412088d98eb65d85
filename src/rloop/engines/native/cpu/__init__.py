"""The decode step of Llama-like models on a CPU, with C kernels: `open_cache`, `logits`, `draw`."""
