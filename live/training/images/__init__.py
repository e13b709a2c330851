"""Image tasks: LoRA for SDXL and Flux with diffusers, which the extra ``image`` brings."""
