"""Real-Fake: training data made by a diffusion model, and what they give away about the images it was trained on.

`pool` deals images to pipelines by a coin. A pipeline is a class-conditional generator (`generators`), the images that
it publishes (`synthetic`), and a classifier trained on them (`classifiers`). `attacks` says what each of four attackers
sees of a pipeline, and `copies` looks for members among the published images.

`stable_diffusion`, `lora`, `visual_token`, `image_to_image` and `recipe` are the paper's own scale: Stable Diffusion
with low-rank adapters, from a local folder.
"""
